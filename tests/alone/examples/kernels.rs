//! Prints the names of the kernels that this processor runs, one a line: `tests/arm` asks it on every processor that it
//! emulates. Not a test.

fn main() {
    roentgen_alone::kernels::available().for_each(|kernels| println!("{}", kernels.name));
}
