//! Compiles the `.proto` files with a compiler in Rust, so that no `protoc` needs to be installed.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = protox::compile(["envoy/check.proto", "sluice/journal.proto"], ["proto"])?;
    describe(&out.join("descriptors.bin"), &files)?;
    prost_build::Config::new().compile_fds(files)?;

    let files = protox::compile(["quota/v1/quota.proto"], ["proto"])?;
    describe(&out.join("quota.v1.bin"), &files)?;
    let mut config = prost_build::Config::new();
    #[cfg(feature = "service")]
    config.service_generator(tonic_prost_build::configure().build_transport(false).service_generator());
    config.compile_fds(files)?;
    Ok(())
}

fn describe(path: &Path, files: &impl Message) -> Result<(), Box<dyn Error>> {
    Ok(std::fs::write(path, files.encode_to_vec())?)
}
