//! Compiles the `.proto` files with a compiler in Rust, so that no `protoc` needs to be installed.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_build::Config;
use prost_types::DescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};

/// Services on the admin port.
const QUOTA: &str = "quota/v1/quota.proto";
/// Files whose messages REST has as JSON.
const JSON: [&str; 2] = ["quota/v1/credit.proto", "quota/v1/merchant.proto"];
/// Messages of other files that theirs contain.
const JSON_OF_OTHERS: [&str; 3] = ["Account", "Counters", "Limit"];
/// A message whose members REST has among those of what contains it.
const FLATTENED: &str = "Counters";
/// Messages that are lists.
const LISTS: [&str; 9] = [
    "StageTable",
    "ChannelList",
    "DunningLadder",
    "BandTable",
    "TextList",
    "PercentList",
    "PolicyList",
    "CreditLineList",
    "AlertList",
];
/// Messages that may contain secrets: how they are shown is written by hand.
const SECRET: [&str; 2] = [".quota.v1.CreatedToken", ".quota.v1.AlertChannel"];

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
    with_service()
        .extern_path(".envoy.service.auth.v3", "crate::envoy")
        .extern_path(".envoy.service.auth.v3.CheckRequest", "crate::batched::CheckRequest")
        .out_dir(batch)
        .compile_fds(files)?;

    let files = protox::compile([QUOTA, JSON[0], JSON[1]], ["proto"])?;
    describe(&out.join("quota.v1.bin"), &files)?;
    let mut config = with_service();
    config.skip_debug(SECRET);
    for file in &files.file {
        let is_json = |message: &&DescriptorProto| {
            JSON.contains(&file.name()) || (file.name() == QUOTA && JSON_OF_OTHERS.contains(&message.name()))
        };
        file.message_type.iter().filter(is_json).for_each(|message| as_json(&mut config, message));
    }
    config.compile_fds(files)?;
    Ok(())
}

/// Lets serde read and write a message as the JSON of REST: absent members are those that are not set, times are text, a member
/// of free form is text in the message (`metadata_json`), and a list or a choice that is a message of its own is what it contains.
fn as_json(config: &mut Config, message: &DescriptorProto) {
    let path = format!(".quota.v1.{}", message.name());
    let derive = "#[derive(::serde::Serialize, ::serde::Deserialize)]";
    config.message_attribute(&path, derive);
    config
        .message_attribute(&path, if is_transparent(message) { "#[serde(transparent)]" } else { "#[serde(default)]" });
    for field in &message.field {
        let mut attribute = |text: &str| {
            config.field_attribute(format!("{path}.{}", field.name()), format!("#[serde({text})]"));
        };
        if field.type_name().rsplit('.').next() == Some(FLATTENED) {
            attribute("flatten");
            continue;
        }
        if field.type_name() == ".google.protobuf.Timestamp" {
            attribute("with = \"crate::json::time\"");
        }
        if let Some(name) = field.name().strip_suffix("_json") {
            attribute(&format!("rename = \"{name}\", with = \"crate::json::text\""));
        }
        let is_message = field.label() == Label::Optional && field.r#type() == Type::Message;
        if field.proto3_optional() || (is_message && field.oneof_index.is_none()) {
            attribute("skip_serializing_if = \"Option::is_none\"");
        }
    }
    for choice in choices(message) {
        config.enum_attribute(format!("{path}.{choice}"), derive);
        config.enum_attribute(format!("{path}.{choice}"), "#[serde(rename_all = \"snake_case\")]");
    }
}

/// Of an `optional` list, one that is empty differs from one that is not set.
fn is_transparent(message: &DescriptorProto) -> bool {
    LISTS.contains(&message.name()) || choices(message).next().is_some()
}

/// An `optional` field is a choice as well, with a name that begins with an underscore.
fn choices(message: &DescriptorProto) -> impl Iterator<Item = &str> {
    message.oneof_decl.iter().map(|choice| choice.name()).filter(|name| !name.starts_with('_'))
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
