//! Compiles the `.proto` files with a compiler in Rust, so that no `protoc` needs to be installed.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_build::Config;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = protox::compile(["envoy/check.proto", "sluice/journal.proto", "sluice/batch.proto"], ["proto"])?;
    describe(&out.join("descriptors.bin"), &files)?;
    let files = protox::compile(["envoy/check.proto", "sluice/journal.proto"], ["proto"])?;
    Config::new().compile_fds(files)?;

    // A separate folder: its imports are generated above.
    let batch = out.join("batch");
    std::fs::create_dir_all(&batch)?;
    let files = protox::compile(["sluice/batch.proto"], ["proto"])?;
    with_service().extern_path(".envoy.service.auth.v3", "crate::envoy").out_dir(batch).compile_fds(files)?;

    let files = protox::compile(["quota/v1/quota.proto"], ["proto"])?;
    describe(&out.join("quota.v1.bin"), &files)?;
    with_service().compile_fds(files)?;
    Ok(())
}

fn with_service() -> Config {
    #[cfg_attr(not(feature = "service"), expect(unused_mut, reason = "changed with the feature only"))]
    let mut config = Config::new();
    #[cfg(feature = "service")]
    config.service_generator(tonic_prost_build::configure().build_transport(false).service_generator());
    config
}

fn describe(path: &Path, files: &impl Message) -> Result<(), Box<dyn Error>> {
    Ok(std::fs::write(path, files.encode_to_vec())?)
}
