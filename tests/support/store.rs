//! A box with a bundle installed, as the library sees it: its `state_dir`, somebody whom it trusts, and their bundles. Not
//! a test.

use super::{Maker, names};
use roentgen::bundle::{Bundle, Config, Install, Installed, SelfTest, Store, StoreError, Trust};
use std::fs;
use std::path::{Path, PathBuf};

/// A box's `state_dir`, somebody whom it trusts, and their bundles.
pub(crate) struct Place {
    pub(crate) root: tempfile::TempDir,
    pub(crate) maker: Maker,
    pub(crate) store: Store,
    pub(crate) trust: Trust,
}

impl Place {
    /// With version 1.0.0 installed.
    pub(crate) fn new() -> Self {
        let (root, maker) = (tempfile::tempdir().unwrap(), Maker::new());
        let trust = Config { trusted_keys: vec![maker.key()], allow_unsigned: false }.trust().unwrap();
        let place = Self { store: Store::new(&root.path().join("state")), root, maker, trust };
        place.install(&place.bundle("1.0.0")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A signed bundle that is not installed yet.
    pub(crate) fn bundle(&self, version: &str) -> PathBuf {
        self.maker.bundle(&self.path("made"), version)
    }

    pub(crate) fn terms<'a>(&'a self, source: &'a Path, packaged: &'a Path) -> Install<'a> {
        Install { source, trust: &self.trust, packaged, allow_downgrade: false }
    }

    pub(crate) fn install(&self, source: &Path) -> Result<Installed, StoreError> {
        self.store.install(&self.terms(source, &self.path("packaged")), test, |_| ())
    }

    pub(crate) fn install_whatever_its_version(&self, source: &Path) -> Result<Installed, StoreError> {
        let packaged = self.path("packaged");
        let terms = Install { allow_downgrade: true, ..self.terms(source, &packaged) };
        self.store.install(&terms, test, |_| ())
    }

    /// As a box that takes what nobody signed.
    pub(crate) fn install_unsigned(&self, source: &Path) -> Result<Installed, StoreError> {
        let trust = Config { trusted_keys: vec![self.maker.key()], allow_unsigned: true }.trust()?;
        let packaged = self.path("packaged");
        self.store.install(&Install { trust: &trust, ..self.terms(source, &packaged) }, test, |_| ())
    }

    pub(crate) fn rollback(&self) -> Result<String, StoreError> {
        let done = self.store.rollback(&self.path("packaged"), &self.trust, test)?;
        Ok(done.to.manifest().version.clone())
    }

    /// The version that a start would take, opened and tested; none where none is active.
    pub(crate) fn active(&self) -> Option<String> {
        let active = self.store.candidates().unwrap().into_iter().next()?;
        let bundle = Bundle::open_trusted(&active, &self.trust).unwrap();
        test(&bundle).unwrap();
        Some(bundle.manifest().version.clone())
    }

    /// Every file below the installed bundles, with its bytes.
    pub(crate) fn installed(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        walk(&self.path("state/bundles"), &mut found);
        found
    }

    /// Asserts that installing `source` changes nothing, and returns the error.
    pub(crate) fn refused(&self, source: &Path) -> StoreError {
        let before = self.installed();
        let error = self.install(source).expect_err("it must be refused");
        assert_eq!(self.installed(), before, "{error}");
        assert_eq!(self.active().as_deref(), Some("1.0.0"));
        error
    }
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() { walk(&path, found) } else { found.push((path.clone(), fs::read(path).unwrap())) }
    }
}

/// The self-test, by the network's own definition.
pub(crate) fn test(bundle: &Bundle) -> Result<SelfTest, StoreError> {
    let network = bundle.network()?;
    Ok(bundle.self_test(0, |image| network.forward(image).map_err(|error| error.to_string()))?)
}
