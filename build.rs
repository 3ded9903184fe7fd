//! Tells the linker where programs of the feature `tflite` find its library when they run: in the package's folder, and where
//! `ROENTGEN_TFLITE_RPATH` says, for tests. Without that feature it does nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ROENTGEN_TFLITE_RPATH");
    if std::env::var_os("CARGO_FEATURE_TFLITE").is_none() {
        return;
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,/usr/lib/roentgen");
    // What the library itself needs (C++'s) is there when the program starts, and need not be where it is linked.
    println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
    if let Ok(folder) = std::env::var("ROENTGEN_TFLITE_RPATH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
