//! The description of the API that others read.

use testkit::Result;
use testkit::api::Api;
use testkit::dirs::workspace;

use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("document::docs_openapi_json_is_what_the_code_says", golden);
    suite.add("document::the_server_answers_with_that_document", served);
}

async fn golden() -> Result<()> {
    let shipped = std::fs::read_to_string(workspace().join("docs/openapi.json"))?;
    let made = sluice_api::admin::openapi::document();
    let differs = shipped.lines().zip(made.lines()).position(|(shipped, made)| shipped != made);
    let advice = "run `cargo run -p authz-server -- openapi > docs/openapi.json`, and read the difference";
    assert!(shipped == made, "docs/openapi.json differs from the code, at line {differs:?} first: {advice}");
    Ok(())
}

async fn served(api: &Api) -> Result<()> {
    let (status, body) = api.server.get("/openapi.json")?;
    let made = sluice_api::admin::openapi::document();
    assert_eq!(status, 200);
    assert!(serde_json::from_str::<serde_json::Value>(&body)? == serde_json::from_str::<serde_json::Value>(&made)?);
    Ok(())
}
