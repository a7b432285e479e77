//! Builds the guest images from the command line: `cargo run --release -p quasar-image --example image_build -- [--out DIR] [--refresh] [--no-bench]`.
//! The `quasar` command offers the same; this one shows the library's use.

use quasar_image::{BuildOptions, Progress, build};

struct Print;

impl Progress for Print {
    fn step(&self, message: &str) {
        println!("{message}");
    }

    fn advance(&self, _done: u64, _total: u64) {}
    fn transfer(&self, _done: u64, _total: u64) {}
}

fn main() -> anyhow::Result<()> {
    let mut options = BuildOptions::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| anyhow::anyhow!("{argument} wants a value"));
        match argument.as_str() {
            "--out" => options.out = Some(value()?.into()),
            "--suite" => options.suite = value()?,
            "--cache" => options.cache = Some(value()?.into()),
            "--mirror" => options.mirror = Some(value()?),
            "--keyring" => options.keyring = Some(value()?.into()),
            "--refresh" => options.refresh = true,
            "--no-bench" => options.bench = false,
            other => anyhow::bail!("unknown argument {other}"),
        }
    }
    let start = std::time::Instant::now();
    let built = build(&options, &Print)?;
    println!("{}", serde_json::to_string_pretty(&built)?);
    println!("{:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
