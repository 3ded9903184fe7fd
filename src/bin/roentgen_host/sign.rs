//! `roentgen-host pack --sign`: signs a bundle with a minisign key, and adds the Edge TPU's form of the model where there is
//! one. Not the rest of the bundle's contents, which stay as they are.

use crate::read;
use anyhow::{Context, Result, ensure};
use ct_codecs::{Base64, Decoder};
use minisign::{PublicKey, SecretKey, SecretKeyBox};
use roentgen::bundle::{self, Bundle, BundleWriter, add_signature, folder_name};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a TFLite file has from its fifth byte on, and the name of the operator that stands for what runs on the chip.
const TFLITE: &[u8; 4] = b"TFL3";
const CUSTOM_OPERATOR: &[u8] = b"edgetpu-custom-op";

/// What `pack` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The bundle's directory
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// The secret key of `roentgen-host keygen` or `minisign -G`
    #[arg(long, value_name = "KEY")]
    sign: PathBuf,
    /// Where the signed bundle is written; in place by default
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What edgetpu_compiler made of the bundle's model.tflite: it becomes the bundle's model_edgetpu.tflite
    #[arg(long, value_name = "FILE", requires = "version")]
    edgetpu: Option<PathBuf>,
    /// The bundle's new version, since its content is another one
    #[arg(long, value_name = "VERSION", requires = "edgetpu")]
    version: Option<String>,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    let key = SigningKey::load(&args.sign)?;
    let out = args.out.as_deref().unwrap_or(&args.bundle);
    match (&args.edgetpu, &args.version) {
        (Some(model), Some(version)) => key.sign(&with_edgetpu(&bundle, model, version, out)?, out),
        _ => key.sign(&bundle, out),
    }
}

/// Writes the bundle with the Edge TPU's form of its model as `to`. Whether that computes the same is seen on the box, which
/// runs the golden vectors on the device itself.
fn with_edgetpu(bundle: &Bundle, model: &Path, version: &str, to: &Path) -> Result<Bundle> {
    let bytes = read(model)?;
    let is_tflite = bytes.get(4..8) == Some(&TFLITE[..]);
    let is_compiled = bytes.windows(CUSTOM_OPERATOR.len()).any(|text| text == CUSTOM_OPERATOR);
    ensure!(
        is_tflite && is_compiled,
        "{} is not what edgetpu_compiler makes: give it the bundle's model.tflite, and here the file that it writes",
        model.display()
    );
    let line = format!("edgetpu_compiler, SHA-256 {}", bundle::sha256_hex(&bytes));
    let provenance = [(bundle::EDGETPU_FILE.to_owned(), line)].into();
    Ok(BundleWriter::of(bundle)?.versioned(version, provenance).file(bundle::EDGETPU_FILE, bytes).write(to)?)
}

/// A secret key that can sign.
pub(crate) struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
}

impl SigningKey {
    /// Reads the key; asks for its password where it has one.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mode = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.permissions().mode();
        ensure!(mode & 0o077 == 0, "{shown} can be read by other users: type `chmod 600 {shown}`");
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let open = SecretKeyBox::from_string(&text).and_then(SecretKeyBox::into_unencrypted_secret_key);
        let secret = match open.ok().or_else(|| unchecked(&text)) {
            Some(secret) => secret,
            // It has a password, or is no key at all, which is then said.
            None => SecretKeyBox::from_string(&text)
                .and_then(|key| key.into_secret_key(None))
                .with_context(|| format!("{shown} cannot be used as a minisign secret key"))?,
        };
        let public = PublicKey::from_secret_key(&secret).with_context(|| format!("{shown} holds no public key"))?;
        Ok(Self { secret, public })
    }

    /// Writes `bundle` signed as `to`, which may be where it is, and checks the signature as a box would.
    pub(crate) fn sign(&self, bundle: &Bundle, to: &Path) -> Result<()> {
        // What no box could install is better refused here.
        folder_name(bundle)?;
        let manifest = bundle.manifest();
        let comment = format!("{} {} {}", manifest.name, manifest.version, bundle.sha256());
        let signature = minisign::sign(
            Some(&self.public),
            &self.secret,
            bundle.signed_bytes(),
            Some(&comment),
            Some("signature of a roentgen bundle's bundle.toml"),
        )
        .context("cannot sign")?;
        add_signature(bundle, &signature.into_string(), to)?;
        let key = self.public.to_base64();
        let trust = bundle::Config { trusted_keys: vec![key.clone()], allow_unsigned: false }.trust()?;
        Bundle::open_trusted(to, &trust)?;
        println!("Signed {} as {key}", to.display());
        Ok(())
    }
}

/// A key without password as `minisign -G -W` of version 0.11 writes it: with zeros for its checksum, where the `minisign`
/// crate wants one. That its halves belong together shows when the first signature is checked.
fn unchecked(text: &str) -> Option<SecretKey> {
    const BYTES: usize = 158;
    const KDF: Range<usize> = 2..4;
    const CHECKSUM: Range<usize> = BYTES - 32..BYTES;
    let bytes = Base64::decode_to_vec(text.lines().nth(1)?.trim(), None).ok()?;
    let zero = |part: Range<usize>| bytes.get(part).is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0));
    if bytes.len() == BYTES && zero(KDF) && zero(CHECKSUM) { SecretKey::from_bytes(&bytes).ok() } else { None }
}
