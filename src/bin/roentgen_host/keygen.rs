//! `roentgen-host keygen`: a pair of minisign keys. Not signing: see `sign`.

use crate::write_whole;
use anyhow::{Context, Result, bail};
use minisign::KeyPair;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What `keygen` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file of the secret key; the public key is written beside it, as KEY.pub
    #[arg(long, value_name = "KEY")]
    out: PathBuf,
    /// Do not ask for a password: whoever reads the file can sign
    #[arg(long)]
    no_password: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    let public = public_path(&args.out);
    for path in [&args.out, &public] {
        if path.symlink_metadata().is_ok() {
            bail!("{} is there already; bundles may be signed with it, so it is not replaced", path.display());
        }
    }
    let pair = if args.no_password {
        KeyPair::generate_unencrypted_keypair()
    } else {
        KeyPair::generate_encrypted_keypair(None)
    };
    let pair = pair.context("cannot make a key; without a terminal to ask for a password add --no-password")?;
    let secret = pair.sk.to_box(Some("roentgen secret key")).context("cannot encode the key")?;
    write_secret(&args.out, secret.into_string().as_bytes())?;
    let text = pair.pk.to_box().context("cannot encode the key")?.into_string();
    write_whole(&public, text.as_bytes())?;
    println!(
        "Secret key: {} (mode 0600). Keep it off the boxes, and keep a copy: it cannot be made again.",
        args.out.display()
    );
    println!("Public key: {}. On every box that is to take your bundles:\n", public.display());
    println!("[bundles]\ntrusted_keys = [\"{}\"]", pair.pk.to_base64());
    Ok(())
}

/// Where the public key of a secret one lies.
fn public_path(secret: &Path) -> PathBuf {
    let mut path = secret.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

/// A new file that nobody but its owner may read, at no moment.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    let told = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(told)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(told)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(told)
}
