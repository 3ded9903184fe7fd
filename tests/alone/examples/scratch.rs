use roentgen_alone::kernels::plane::Plane;
use roentgen_alone::kernels::winograd::*;
use roentgen_alone::kernels::*;
use roentgen_alone::quant::{QuantParams, Requantize};
use std::time::Instant;
fn best(mut f: impl FnMut()) -> f64 {
    let mut b = f64::MAX;
    for _ in 0..200 {
        let t = Instant::now();
        f();
        b = b.min(t.elapsed().as_nanos() as f64);
    }
    b
}
fn main() {
    let k = named(&std::env::args().nth(1).unwrap_or("avx512vnni".into())).unwrap();
    let w = &k.winograd[0];
    let y = QuantParams { scale: 1.0, zero_point: 0 };
    let e = Epilogue::new(&[1000; 32], &[1i8; 32 * 9], &vec![Requantize::new(0.001, 0.01, y).unwrap(); 32], 0);
    for tiles in [3usize, 7, 14, 28, 56, 112] {
        let mut m = Aligned::zeroed(36 * tiles * 32 * 4);
        m.as_i32_mut().iter_mut().enumerate().for_each(|(i, m)| *m = (i as i32).wrapping_mul(77777));
        let mut out = vec![0u8; 4 * (tiles * 4 + 2) * 32];
        for pool in [false, true] {
            let row_bytes = (tiles * 4 + 2) * 32;
            let t = best(|| {
                for _ in 0..8 {
                    (w.output)(OutputTiles {
                        m: &m.as_i32_mut()[..],
                        rows: 4,
                        columns: tiles * 4,
                        epilogue: &e,
                        pool,
                        output: &mut out,
                        row_bytes,
                    })
                }
            });
            println!("output tiles {tiles} pool {pool}: {:.1} ns a tile", t / 8.0 / tiles as f64);
        }
        let plane = Plane { rows: 4, columns: tiles * 4, channels: 32 };
        let img = vec![7u8; plane.bytes()];
        let mut v = Aligned::zeroed(36 * tiles * 64);
        let t = best(|| {
            for _ in 0..8 {
                (w.input)(InputTiles { input: &img, plane, block: 0, tile_rows: 0..1, v: v.as_i16_mut() })
            }
        });
        println!("input tiles {tiles}: {:.1} ns a tile", t / 8.0 / tiles as f64);
    }
    for blocks in [1usize, 2, 4, 8, 16] {
        let f = vec![5i8; blocks * 32 * 9 * 32];
        let mut u = Aligned::zeroed(2 * w.weight_count(blocks));
        let t = best(|| (w.weights)(&f, u.as_i16_mut()));
        println!("weights blocks {blocks}: {:.1} ns a pair of channels", t / (blocks * 16) as f64);
    }
}
