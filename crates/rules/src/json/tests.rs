//! The reader of usual bodies against the one that knows every reason.

use proptest::prelude::*;

use super::*;

fn wanted() -> Wanted {
    let mut wanted = Wanted::default();
    for pointer in ["/amount", "/order_no", "/payment/currency", "/$x", "/list/0"] {
        wanted.add(pointer, 8).unwrap();
    }
    wanted.refuse("/payment/amount", 8, "twice".to_owned()).unwrap();
    wanted.refuse_key(Name::new("merchant"), || "elsewhere".to_owned());
    wanted
}

fn scan<'a>(wanted: &Wanted, body: &'a [u8]) -> Option<Vec<Option<Scalar<'a>>>> {
    scan::read(&wanted.root, wanted.pointers.len(), body)
}

/// Pieces of documents, also of broken ones.
const PIECES: [&str; 56] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    " ",
    "\n",
    "\t",
    "\r",
    "\"",
    "\\",
    "\"amount\"",
    "\"order_no\"",
    "\"payment\"",
    "\"currency\"",
    "\"$x\"",
    "\"list\"",
    "\"merchant\"",
    "\"Amount\"",
    "\"amount \"",
    "\"am\\u006funt\"",
    "\"amount[x]\"",
    "\"x\"",
    "\"customer\"",
    "\"\"",
    "\"\u{e9}\"",
    "\"\u{17f}\"",
    "\"USD\"",
    "\"a longer text, of more than eight bytes\"",
    "\"tab\\t\"",
    "\"\\u00e9\"",
    "\"\\ud800\"",
    "\"\\u12\"",
    "\"\\x\"",
    "\"\u{1}\"",
    "0",
    "1",
    "-1",
    "01",
    "-",
    "1.5",
    "1.",
    "1e5",
    "1E+",
    "12345678901234567890",
    "true",
    "false",
    "null",
    "nul",
    "{}",
    "[]",
    "[1, {\"a\": []}]",
    "\"amount\": 1",
    "\"order_no\": \"o-1\"",
    "\"x\": {\"y\": [true, null]}",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn a_usual_body_is_read_alike(pieces in proptest::collection::vec(0..PIECES.len(), 0..24)) {
        let wanted = wanted();
        let text: String = pieces.iter().map(|at| PIECES[*at]).collect();
        for text in [text.clone(), format!("{{{text}}}")] {
            if let Some(values) = scan(&wanted, text.as_bytes()) {
                prop_assert_eq!(wanted.read_any(text.as_bytes()), Ok(values), "{}", text);
            }
        }
    }

    #[test]
    fn a_body_of_members_is_read_alike(
        members in proptest::collection::vec((12..36_usize, 22..PIECES.len()), 0..6), blanks in "[ \n]{0,2}", cut in 0_usize..300,
    ) {
        let wanted = wanted();
        let members: Vec<String> =
            members.into_iter().map(|(key, value)| format!("{}{blanks}:{blanks}{}", PIECES[key], PIECES[value])).collect();
        let text = format!("{blanks}{{{blanks}{}{blanks}}}{blanks}", members.join(&format!("{blanks},{blanks}")));
        let whole = text.as_bytes();
        for body in [whole, &whole[..cut.min(whole.len())]] {
            if let Some(values) = scan(&wanted, body) {
                prop_assert_eq!(wanted.read_any(body), Ok(values), "{}", text);
            }
        }
    }
}

/// Keys of pointers and of bodies: some begin alike, some fold onto others, some are places of an array.
const KEYS: [&str; 16] = [
    "amount",
    "amount_minor",
    "Amount",
    "currency",
    "customer",
    "order_no",
    "orderNo",
    "merchant",
    "merchant_id",
    "merchant\u{e9}",
    "id",
    "x",
    "0",
    "1",
    "a longer key of many bytes",
    "$",
];

fn pointer() -> impl Strategy<Value = String> {
    let keys = proptest::collection::vec(proptest::sample::select(KEYS.as_slice()), 1..3);
    keys.prop_map(|keys| keys.iter().map(|key| format!("/{key}")).collect())
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let members = proptest::collection::vec((proptest::sample::select(KEYS.as_slice()), value), 0..5);
    members.prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Any value: scalars, objects and arrays in each other.
fn value() -> impl Strategy<Value = String> {
    let scalars = ["1", "-0.5e3", "10.50", "\"USD\"", "\"\"", "\"a\\tb\"", "\"\u{e9}\"", "null", "true", "false"];
    proptest::sample::select(scalars.to_vec()).prop_map(str::to_owned).prop_recursive(3, 12, 4, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..3).prop_map(|list| format!("[{}]", list.join(", ")));
        prop_oneof![3 => object(inner), 1 => list]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    /// The same for every rule: whatever it reads, and whatever it refuses.
    #[test]
    fn a_body_is_read_alike_whatever_the_rule_reads(
        pointers in proptest::collection::vec(pointer(), 1..6), refused in proptest::collection::vec(pointer(), 0..3),
        keys in proptest::collection::vec(proptest::sample::select(KEYS.as_slice()), 0..3), body in object(value()),
    ) {
        let mut wanted = Wanted::default();
        // A pointer inside another one is no rule's.
        let read = pointers.iter().filter(|pointer| wanted.add(pointer, 8).is_ok()).count();
        prop_assert!(read > 0);
        let _ = refused.iter().filter(|pointer| wanted.refuse(pointer, 8, "refused".to_owned()).is_ok()).count();
        keys.iter().for_each(|key| wanted.refuse_key(Name::new(key), || "elsewhere".to_owned()));
        let any = wanted.read_any(body.as_bytes());
        if let Some(values) = scan(&wanted, body.as_bytes()) {
            prop_assert_eq!(&any, &Ok(values), "{:?} {}", pointers, body);
        }
        prop_assert_eq!(wanted.read(body.as_bytes()), any, "{:?} {}", pointers, body);
    }
}

#[test]
fn usual_bodies_need_no_other_reader() {
    let wanted = wanted();
    let table = [
        (r#"{"amount": 1, "order_no": "o"}"#, true),
        (" {\n\t\"amount\" : -1.5e+3 ,\r\"x\":[{\"amount\":2},[]],\"y\":{\"z\":\"\\\"}\"}}\n", true),
        (r#"{"payment": {"currency": "USD", "other": false}, "order_no": "a\tb", "amount": null}"#, true),
        (r#"{"amount": 1, "amount": 1}"#, false),
        (r#"{"Amount": 1}"#, false),
        (r#"{"merchant": 1}"#, false),
        (r#"{"payment": {"amount": 1}}"#, false),
        (r#"{"payment": null}"#, false),
        (r#"{"amount": {}}"#, false),
        (r#"{"list": [1]}"#, false),
        (r#"{"a\u006dount": 1}"#, false),
        (r#"{"amount": 1} {}"#, false),
        (r#"{"amount": 1,}"#, false),
        ("[]", false),
        ("", false),
    ];
    for (body, is_usual) in table {
        let read = scan(&wanted, body.as_bytes());
        assert_eq!(read.is_some(), is_usual, "{body}");
        if let Some(read) = read {
            assert_eq!(wanted.read_any(body.as_bytes()), Ok(read), "{body}");
        }
    }
    let deep = |depth: usize| format!("{{\"x\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(scan(&wanted, deep(32).as_bytes()).is_some() && scan(&wanted, deep(33).as_bytes()).is_none());
    assert!(wanted.read(deep(33).as_bytes()).is_ok());
}

/// Each byte at each place of a string.
#[test]
fn every_byte_of_a_string_is_read_alike() {
    let wanted = wanted();
    for byte in 0..=u8::MAX {
        for (at, len) in (1..18).flat_map(|len| (0..len).map(move |at| (at, len))) {
            let mut text = vec![b'x'; len];
            text[at] = byte;
            let body = [&b"{\"x\":\""[..], &text, b"\",\"order_no\":\"", &text, b"\"}"].concat();
            match (scan(&wanted, &body), wanted.read_any(&body)) {
                (None, Err(_)) => {}
                (Some(own), Ok(other)) => assert_eq!(own, other, "{byte} at {at} of {len}"),
                (own, other) => panic!("{byte} at {at} of {len}: {own:?}, {other:?}"),
            }
        }
    }
}
