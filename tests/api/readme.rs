//! The examples of docs/api.md: each request as it stands there, and its answer below it as a comment. Those of README.md are
//! among them.

use std::time::Duration;

use serde_json::Value;
use testkit::api::{Caller, differences, expect};
use testkit::client::Call;
use testkit::dirs::workspace;
use testkit::{Context, Failure, Result, wait};

/// The section with the examples.
const HEADING: &str = "\n## Examples\n";
/// How long what the journal reports may take.
const WITHIN: Duration = Duration::from_secs(30);

/// A request as the document has it, and the status and the members of its answer.
pub(crate) struct Example {
    pub(crate) call: Call,
    status: u16,
    answer: Value,
}

/// The section of docs/api.md with the examples.
pub(crate) fn section() -> Result<String> {
    let text = std::fs::read_to_string(workspace().join("docs/api.md"))?;
    let (_, section) = text.split_once(HEADING).ok_or_else(|| Failure::new("docs/api.md has no section Examples"))?;
    let section = section.split("\n## ").next().unwrap_or_default().to_owned();
    let readme = std::fs::read_to_string(workspace().join("README.md"))?;
    let shown: Vec<&str> = readme.split("\ncurl ").skip(1).collect();
    for example in &shown {
        let (request, rest) =
            example.split_once("\n# ").ok_or_else(|| Failure::new("an example of README.md has no answer"))?;
        let answer = rest.lines().next().unwrap_or_default();
        let is_there = section.contains(&format!("\ncurl {request}\n# {answer}\n"));
        is_there.then_some(()).ok_or_else(|| Failure::new(format!("docs/api.md does not have README's {request}")))?;
    }
    (!shown.is_empty()).then_some(section).ok_or_else(|| Failure::new("README.md has no example"))
}

/// Sends each example in its order.
pub(crate) async fn send(caller: &Caller, examples: Vec<Example>) -> Result<()> {
    for example in examples {
        let what = format!("{} {}", example.call.method, example.call.path);
        ask(caller, example).await.map_err(|failure| failure.while_doing(what))?;
    }
    Ok(())
}

/// Changes are answered at once as the document says; what the journal reports may take its time.
async fn ask(caller: &Caller, example: Example) -> Result<()> {
    let Example { call, status, answer } = example;
    if call.method == "POST" {
        expect(&caller.send(call).await?, status, &answer);
        return Ok(());
    }
    let waited = wait::until_async("the answer", WITHIN, || async {
        let found = caller.send(call.clone()).await?;
        Ok((found.status == status && differences("", &found.json(), &answer).is_empty()).then_some(()))
    });
    if let Err(failure) = waited.await {
        let found = caller.send(call).await?;
        return Err(failure.while_doing(format!("{:?}", differences("", &found.json(), &answer))));
    }
    Ok(())
}

/// Every `curl` command of the section with the answer below it.
pub(crate) fn examples(section: &str) -> Result<Vec<Example>> {
    let joined = section.replace("\\\n", " ");
    let mut lines = joined.lines().peekable();
    let mut examples = Vec::new();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("curl ") else { continue };
        let mut answer = String::new();
        while let Some(more) = lines.next_if(|next| next.starts_with("# ")) {
            answer.push_str(more.trim_start_matches("# "));
        }
        let example =
            || Ok::<_, Failure>(Example { call: call(command)?, status: status(&answer)?, answer: members(&answer)? });
        examples.push(example().context(line)?);
    }
    Ok(examples)
}

/// The status before an answer's body; 200 where there is none.
fn status(answer: &str) -> Result<u16> {
    match answer.split_once(' ') {
        Some((status, _)) if !status.starts_with('{') => Ok(status.parse()?),
        _ => Ok(200),
    }
}

/// The body; an ellipsis stands for members that are not shown.
fn members(answer: &str) -> Result<Value> {
    let body = answer.find('{').and_then(|start| answer.get(start..)).unwrap_or_default();
    serde_json::from_str(&body.replace(", …", "").replace('…', "")).context(body)
}

/// What curl would send: its words are options with a value (`-H`, `--json`), and the URL.
fn call(command: &str) -> Result<Call> {
    let words = words(command);
    let mut words = words.iter().map(String::as_str);
    let (mut path, mut body) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "-sH" | "-siH" => assert_eq!(words.next(), Some("$AUTH"), "{command}"),
            "--json" => body = words.next(),
            url => {
                path = Some(url.strip_prefix("$API").ok_or_else(|| Failure::new(format!("{url} is no URL of $API")))?)
            }
        }
    }
    let path = path.ok_or_else(|| Failure::new("there is no URL"))?;
    Ok(body.map_or_else(|| Call::new("GET", path), |body| Call::post_json(path, body.to_owned())))
}

/// Splits at spaces outside of quotes, as a shell does; variables stay.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in command.chars() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if open == letter => quote = None,
            (' ', None) => words.push(std::mem::take(&mut word)),
            (letter, _) => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}
