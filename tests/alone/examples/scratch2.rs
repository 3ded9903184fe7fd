use roentgen_alone::kernels::winograd::*;
use roentgen_alone::kernels::*;
use std::time::Instant;
fn best(n: usize, mut f: impl FnMut()) -> f64 {
    let mut b = f64::MAX;
    for _ in 0..n {
        let t = Instant::now();
        f();
        b = b.min(t.elapsed().as_nanos() as f64);
    }
    b
}
fn main() {
    let k = named(&std::env::args().nth(1).unwrap_or("avx512vnni".into())).unwrap();
    let w = &k.winograd[0];
    let ceil = {
        let t = best(20, || {
            (k.ceiling.winograd)(200_000);
        });
        (k.ceiling.winograd)(1) as f64 * 200_000. / t
    };
    println!("ceiling {ceil:.1}");
    for blocks in [2usize, 4, 8, 16] {
        for tiles in [7usize, 14, 28, 49, 56, 98, 196] {
            let mut m = Aligned::zeroed(36 * tiles * 32 * 4);
            let v = Aligned::zeroed(36 * tiles * 64 * blocks);
            let filters = vec![3i8; 9 * 1024 * blocks];
            let mut u = Aligned::zeroed(2 * w.weight_count(blocks));
            (w.weights)(&filters, u.as_i16_mut());
            let macs = (36 * tiles * blocks * 1024) as f64;
            let t = best(60, || {
                (w.multiply)(Multiply {
                    v: v.as_i16(),
                    blocks,
                    tiles,
                    range: 0..tiles,
                    u: u.as_i16(),
                    m: m.as_i32_mut(),
                })
            });
            let f = best(60, || {
                w.multiply_filters(FlyMultiply {
                    v: v.as_i16(),
                    blocks,
                    tiles,
                    range: 0..tiles,
                    filters: &filters,
                    scratch: u.as_i16_mut(),
                    m: m.as_i32_mut(),
                })
            });
            println!(
                "blocks {blocks:2} tiles {tiles:3}: {:.0}% fly {:.0}%",
                100.0 * macs / t / ceil,
                100.0 * macs / f / ceil
            );
        }
    }
}
