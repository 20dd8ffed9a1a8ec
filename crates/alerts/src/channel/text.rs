//! The text of a message, the same for every channel that people read.

use crate::notice::{Alert, Change, Content, Digest, DigestAlert, Notice};
use crate::{Level, Subject};

/// A line is cut to so many characters where space is limited.
const LINE_CHARS_MAX: usize = 600;
/// Kept free for the line that counts what is left out, in bytes.
const MORE_BYTES_MAX: usize = 32;

/// A title of one line, and lines below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub title: String,
    pub lines: Vec<String>,
    /// Number of lines that are left out.
    pub left_out: usize,
}

impl Text {
    /// Writes a notice.
    #[must_use]
    pub fn of(notice: &Notice) -> Self {
        match &notice.content {
            Content::Raised(alert) => Self { title: title(Change::Raised, alert), lines: lines(alert), left_out: 0 },
            Content::Resolved(alert) => {
                Self { title: title(Change::Resolved, alert), lines: lines(alert), left_out: 0 }
            }
            Content::Digest(digest) => summary(digest),
            Content::Test(test) => Self {
                title: "[test] Sluice alerts".to_owned(),
                lines: vec![
                    test.message.clone(),
                    format!("Channel: {}", test.channel_id),
                    format!("Requested by: {}", test.requested_by),
                ],
                left_out: 0,
            },
        }
    }

    /// The lines as one text.
    #[must_use]
    pub fn plain(&self) -> String {
        self.all().join("\n")
    }

    /// As many lines as fit into `bytes_max` after `written`, which may make a line longer; the last one counts the others.
    #[must_use]
    pub fn fitting(&self, bytes_max: usize, written: impl Fn(&str) -> String) -> Vec<String> {
        let mut room = bytes_max.saturating_sub(MORE_BYTES_MAX);
        let written = self.lines.iter().map(|line| written(&cut(line, LINE_CHARS_MAX)));
        let has_room = |line: &String| room.checked_sub(line.len() + 1).map(|left| room = left).is_some();
        let mut lines: Vec<String> = written.take_while(has_room).collect();
        lines.extend(more(self.left_out + self.lines.len() - lines.len()));
        lines
    }

    fn all(&self) -> Vec<String> {
        self.lines.iter().cloned().chain(more(self.left_out)).collect()
    }

    /// Title and lines as an HTML document.
    #[must_use]
    pub fn html(&self) -> String {
        let lines: String = self.all().iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect();
        let title = escape(&self.title);
        format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>\n<h2>{title}</h2>\n{lines}</body></html>\n"
        )
    }
}

/// The text, of so many characters at most.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

fn more(left_out: usize) -> Option<String> {
    (left_out > 0).then(|| format!("and {left_out} more"))
}

fn title(change: Change, alert: &Alert) -> String {
    let state = match change {
        Change::Raised => alert.alert_level.into_str(),
        Change::Resolved => "resolved",
    };
    format!("[{state}] {}{}", heading(alert), about(alert))
}

/// What it is about; for merchants who owe money in words.
fn heading(alert: &Alert) -> &str {
    match (Subject::from_column(&alert.subject), alert.alert_level) {
        (Some(Subject::CreditDunning), Level::Warning) => "Payment reminder",
        (Some(Subject::CreditDunning), Level::Critical) => "Payment demand",
        (Some(Subject::CreditWatch), _) => "Credit line past due",
        _ => &alert.alert_type,
    }
}

/// The alert's account.
fn about(alert: &Alert) -> String {
    match (&alert.merchant_id, &alert.currency) {
        (Some(merchant), Some(currency)) => format!(": {merchant}, {currency}"),
        (merchant, _) => merchant.as_ref().map(|merchant| format!(": {merchant}")).unwrap_or_default(),
    }
}

fn lines(alert: &Alert) -> Vec<String> {
    let mut lines = vec![alert.message.clone()];
    lines.push(format!("Raised: {}", alert.raised_at.format("%Y-%m-%d %H:%M:%S UTC")));
    if let Some(at) = alert.resolved_at {
        let by = alert.resolved_by.as_deref().unwrap_or("system");
        let reason = alert.resolve_reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
        lines.push(format!("Resolved: {} by {by}{reason}", at.format("%Y-%m-%d %H:%M:%S UTC")));
    }
    if let Some(notes) = &alert.resolve_notes {
        lines.push(format!("Notes: {notes}"));
    }
    lines.push(format!("Alert: {}", alert.alert_id));
    lines
}

fn summary(digest: &Digest) -> Text {
    let of = |change| digest.alerts.iter().filter(move |one| one.change == change).count();
    let line = |one: &DigestAlert| format!("{}: {}", title(one.change, &one.alert), one.alert.message);
    let lines = digest.alerts.iter().map(line).collect();
    let (raised, resolved) = (of(Change::Raised), of(Change::Resolved));
    let title = match digest.left_out {
        0 => format!("[digest] {raised} raised, {resolved} resolved"),
        _ => format!("[digest] {} changes of alerts", digest.count),
    };
    Text { title, lines, left_out: digest.left_out }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::sample;

    #[test]
    fn each_notice_has_its_words() {
        let mut alert = sample::alert();
        let raised = Text::of(&Notice::of(Change::Raised, alert.clone()));
        assert_eq!(raised.title, "[warning] daily_80: M-1, USD");
        assert_eq!(raised.lines[..2], ["80 % of the daily limit is used", "Raised: 2023-11-14 22:13:20 UTC"]);
        alert.is_resolved = true;
        (alert.resolved_at, alert.resolve_reason) = (Some(alert.raised_at), Some("refund".to_owned()));
        let resolved = Text::of(&Notice::of(Change::Resolved, alert.clone()));
        assert_eq!(resolved.title, "[resolved] daily_80: M-1, USD");
        assert!(resolved.plain().contains("UTC by system, refund"), "{resolved:?}");
        let digest = Text::of(&Notice::digest([Notice::of(Change::Resolved, alert)], sample::notice().timestamp));
        assert_eq!((digest.title.as_str(), digest.lines.len()), ("[digest] 0 raised, 1 resolved", 1));
    }

    #[test]
    fn credit_has_titles_for_who_owes() {
        let titles = [
            ("credit_dunning", Level::Warning, Change::Raised, "[warning] Payment reminder: M-1, USD"),
            ("credit_dunning", Level::Critical, Change::Raised, "[critical] Payment demand: M-1, USD"),
            ("credit_dunning", Level::Warning, Change::Resolved, "[resolved] Payment reminder: M-1, USD"),
            ("credit_watch", Level::Warning, Change::Raised, "[warning] Credit line past due: M-1, USD"),
        ];
        for (subject, alert_level, change, title) in titles {
            let word = subject.to_owned();
            let alert = Alert { subject: word.clone(), alert_type: word, alert_level, ..sample::alert() };
            assert_eq!(Text::of(&Notice::of(change, alert)).title, title);
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let text = |lines: &[&str]| Text {
            title: String::new(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            left_out: 2,
        };
        let fitting = |lines, room| text(lines).fitting(MORE_BYTES_MAX + room, |line| line.replace('&', "&amp;"));
        assert_eq!(fitting(&["one", "two"], 8), ["one", "two", "and 2 more"]);
        assert_eq!(fitting(&["one", "two", "three"], 8), ["one", "two", "and 3 more"]);
        assert_eq!(fitting(&["one", "&", "two"], 9), ["one", "and 4 more"]);
        assert_eq!(text(&["one"]).plain(), "one\nand 2 more");
        assert_eq!((cut("abc", 3), cut("äöüß", 3)), ("abc".to_owned(), "äö…".to_owned()));
    }

    #[test]
    fn what_others_wrote_is_no_markup() {
        let mut alert = sample::alert();
        "<script>alert('x')</script>&\"".clone_into(&mut alert.message);
        let html = Text::of(&Notice::of(Change::Raised, alert)).html();
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"), "{html}");
        assert!(!html.contains("<script>"), "{html}");
    }
}
