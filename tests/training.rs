//! Fine-tuning by `roentgen-host train` on a small trunk: that a killed run goes on as if nothing had been, that the
//! cache of the frozen blocks changes nothing but the time, that training may start from nothing, and that runs of one trunk
//! are averaged. Not how good a
//! model becomes: its bundle carries its own figures.
#![cfg(feature = "host")]

#[path = "common/host.rs"]
mod chain;

use chain::{done, host, refused, write_data, write_trunk};
use std::fs;
use std::path::Path;

/// A folder with an imported trunk and images.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_trunk(&folder.path().join("trunk.safetensors"));
    write_data(&folder.path().join("data"));
    done(folder.path(), "import --weights {}/trunk.safetensors --convention caffe --out {}/model.safetensors");
    folder
}

/// Four passes of four steps of fine-tuning from block 4, writing to `out`.
fn fine(out: &str, more: &str) -> String {
    format!(
        "train --model {{}}/model.safetensors --data {{}}/data --out {{}}/{out} --lr 0.01 --epochs 20 --unfreeze block4 \
         --fine-epochs 4 --fine-batch 8 --fine-lr 0.003 {more}"
    )
}

/// The tensors of a model, without its notes.
fn tensors(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect();
    tensors.sort();
    tensors
}

#[test]
fn a_run_that_was_killed_goes_on_as_if_nothing_had_been() {
    let folder = prepared();
    let dir = folder.path();
    done(dir, &fine("whole.safetensors", "--log {}/whole.csv"));
    assert!(!dir.join("whole.safetensors.checkpoint").exists(), "a finished run needs no checkpoint");

    // A checkpoint after every step; the run is killed as soon as it has got into its second pass.
    let often = fine("cut.safetensors", "--log {}/cut.csv --checkpoint-minutes 0 --resume");
    let arguments = often.split_whitespace().map(|word| word.replace("{}", &dir.display().to_string()));
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_roentgen-host"))
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = dir.join("cut.safetensors.checkpoint");
    while !dir.join("cut.csv").exists() && run.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    run.kill().unwrap();
    assert!(!run.wait().unwrap().success(), "the run was over before it could be killed");
    assert!(checkpoint.exists());

    // Other settings are another run, and nobody's work is overwritten unasked.
    let error = refused(dir, &fine("cut.safetensors", "--resume --dropout 0.1"));
    assert!(error.contains("other settings") && error.contains("cut.safetensors.checkpoint"), "{error}");
    let error = refused(dir, &fine("cut.safetensors", ""));
    assert!(error.contains("--resume"), "{error}");
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &whole[..whole.len() / 2]).unwrap();
    let error = refused(dir, &often);
    assert!(error.contains("cut.safetensors.checkpoint"), "{error}");
    fs::write(&checkpoint, whole).unwrap();
    // The best pass is chosen by val: with another val it is another run.
    fs::rename(dir.join("data/val/covid/100.png"), dir.join("away.png")).unwrap();
    let error = refused(dir, &often);
    assert!(error.contains("cut.safetensors.checkpoint"), "{error}");
    fs::rename(dir.join("away.png"), dir.join("data/val/covid/100.png")).unwrap();

    let said = done(dir, &often);
    assert!(said.contains("Going on after step"), "{said}");
    assert!(tensors(&dir.join("cut.safetensors")) == tensors(&dir.join("whole.safetensors")), "{said}");
    let figures = |name: &str| -> Vec<String> {
        let log = fs::read_to_string(dir.join(name)).unwrap();
        log.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
    };
    assert_eq!(figures("cut.csv"), figures("whole.csv"), "all but the minutes");
    assert_eq!(figures("cut.csv").len(), 1 + 4);
    assert!(fs::read_to_string(dir.join("cut.svg")).unwrap().contains("val macro F1"));
}

#[test]
fn a_clock_that_runs_out_with_a_pass_adds_no_empty_one() {
    let folder = prepared();
    let dir = folder.path();
    // One step a pass, and time for no more than the first.
    let short = "train --model {}/model.safetensors --data {}/data --out {}/short.safetensors --lr 0.01 --epochs 20 \
                 --unfreeze block5 --fine-epochs 3 --fine-batch 32 --minutes 1e-12 --log {}/short.csv";
    done(dir, short);
    let log = fs::read_to_string(dir.join("short.csv")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 1 + 1, "{log}");
    let loss: f64 = lines[1].split(',').nth(1).unwrap().parse().unwrap();
    assert!(loss > 0.0, "{log}");
    assert!(dir.join("short.safetensors").exists());
}

#[test]
fn the_cache_of_the_frozen_blocks_saves_their_work_and_changes_nothing() {
    let folder = prepared();
    let dir = folder.path();
    let kept = fine("kept.safetensors", "--copies 2 --cache {}/features");
    let said = host(dir, &kept);
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let cache = fs::read_dir(dir.join("features")).unwrap().map(|entry| entry.unwrap().path());
    let cache: Vec<_> = cache.filter(|path| path.extension().is_some_and(|e| e == "lower")).collect();
    // 32 training images twice and 16 of val, through three blocks: 8 channels of 28 × 28 in f16, and a check sum.
    assert_eq!(fs::metadata(&cache[0]).unwrap().len(), (32 * 2 + 16) * (8 * 28 * 28 * 2 + 8));
    assert!(said.contains("GB"), "{said}");
    let first = tensors(&dir.join("kept.safetensors"));
    // The second run reads what the first has written.
    done(dir, &kept);
    assert!(tensors(&dir.join("kept.safetensors")) == first);
    let error = refused(dir, &fine("small.safetensors", "--copies 2 --cache-gb 0.0001"));
    assert!(error.contains("--cache-gb"), "{error}");
}

#[test]
fn training_starts_from_a_trunks_own_file_or_from_nothing() {
    let folder = prepared();
    let dir = folder.path();
    let few = "--data {}/data --lr 0.01 --epochs 20";
    let imported = format!("train --model {{}}/model.safetensors --out {{}}/imported.safetensors {few}");
    let direct = "train --weights {}/trunk.safetensors --convention caffe --out {}/direct.safetensors";
    done(dir, &imported);
    done(dir, &format!("{direct} {few}"));
    assert!(tensors(&dir.join("direct.safetensors")) == tensors(&dir.join("imported.safetensors")));

    // VGG16 with 2 to 16 channels: what a person types, at a size that a test can wait for.
    let scratch = format!(
        "train --from-scratch --narrower 32 --unfreeze all --fine-epochs 1 --fine-batch 16 --seed 5 \
         --out {{}}/scratch.safetensors {few}"
    );
    done(dir, &scratch);
    let trained = tensors(&dir.join("scratch.safetensors"));
    assert_eq!(trained.len(), 2 * (13 + 1));
    done(dir, &scratch.replace("scratch.safetensors", "again.safetensors"));
    assert!(tensors(&dir.join("again.safetensors")) == trained, "the same seed gives the same model");

    for (wrong, said) in [
        ("train --data {}/data", "--from-scratch"),
        ("train --data {}/data --from-scratch --model {}/model.safetensors", "--model"),
        ("train --data {}/data --weights {}/trunk.safetensors", "--convention"),
        ("train --data {}/data --from-scratch --narrower 0", "--narrower"),
    ] {
        let error = refused(dir, wrong);
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn runs_of_one_trunk_are_averaged_and_val_says_what_that_is_worth() {
    let folder = prepared();
    let dir = folder.path();
    done(dir, &fine("a.safetensors", "--seed 1"));
    done(dir, &fine("b.safetensors", "--seed 2"));
    let said =
        done(dir, "average --model {}/a.safetensors --model {}/b.safetensors --data {}/data --out {}/mean.safetensors");
    assert_eq!(said.matches("negative log-likelihood").count(), 3, "{said}");
    let all = ["a", "b", "mean"].map(|name| tensors(&dir.join(format!("{name}.safetensors"))));
    let numbers = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    };
    for ((a, b), mean) in all[0].iter().zip(&all[1]).zip(&all[2]) {
        assert!(a.0 == b.0 && b.0 == mean.0);
        for ((a, b), mean) in numbers(&a.1).iter().zip(numbers(&b.1)).zip(numbers(&mean.1)) {
            assert_eq!(mean, f64::midpoint(f64::from(*a), f64::from(b)) as f32);
        }
    }
    assert!(all[0] != all[2], "another seed gives another model");
    done(dir, "quantize --model {}/mean.safetensors --data {}/data --out {}/bundle --calibration-images 16 --quick");

    let error = refused(dir, "average --model {}/a.safetensors --data {}/data --out {}/mean.safetensors");
    assert!(error.contains("twice"), "{error}");
    let error = refused(
        dir,
        "average --model {}/a.safetensors --model {}/model.safetensors --data {}/data --out {}/mean.safetensors",
    );
    assert!(error.contains("no head"), "{error}");
}
