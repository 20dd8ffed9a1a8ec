//! Envoy, the gateway and the servers around the module, and what must hold whatever they do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::answers::{Answer, GrpcCall, batch, delays, passes, question, questions, refuses};
use crate::host::ROOT;
use crate::proxy::Proxy;

/// One event. Its numbers choose among what is there at the time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A payment whose body arrives in so many pieces; of none, in the head alone.
    Begin { configuration: u8, pieces: u8 },
    /// The next piece of a payment's body.
    Piece(u8),
    /// A client leaves.
    Leave(u8),
    /// The gateway answers a payment that it has, and the stream ends.
    Gateway { payment: u8, answer: u8 },
    /// A call ends.
    Answer { call: u8, answer: u8 },
    /// The module's thread wakes, now or when something is due.
    Time(u8),
    /// Envoy loads a configuration.
    Configure(u8),
    /// Envoy loads one that the module refuses.
    Refuse,
    /// Envoy drops a configuration.
    Drop(u8),
    /// The next call panics.
    Panic,
    /// From now on a stream ends within its answer, or not.
    EndWithin(bool),
}

#[derive(Debug)]
struct Payment {
    context: u32,
    order: u32,
    configuration: u32,
    /// Pieces of the body that have not arrived.
    left: Vec<Vec<u8>>,
    is_over: bool,
}

/// What the servers know.
#[derive(Debug, Default)]
struct Ledger {
    /// The order of each attempt that was charged.
    charged: BTreeMap<String, u32>,
    voided: BTreeSet<String>,
}

pub(crate) struct World {
    proxy: Proxy,
    payments: Vec<Payment>,
    configurations: Vec<u32>,
    next_configuration: u32,
    calls: Vec<GrpcCall>,
    ledger: Ledger,
    /// The gateway has answered these orders with a success.
    paid: BTreeSet<u32>,
}

fn configuration(choice: u8) -> Value {
    let rule = |name: &str, change: Value| {
        let mut rule = json!({
            "name": name, "match": {"methods": ["POST"], "path": format!("/{name}/{{merchant}}")}, "unit": "minor",
            "on_error": if choice & 1 == 0 { "deny" } else { "allow" }, "timeout_ms": 300,
            "extract": {"merchant": [{"path": "merchant"}], "amount": [{"json": "/amount"}],
                "currency": [{"json": "/currency"}], "order_no": [{"json": "/order_no"}]},
        });
        rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        rule
    };
    let query = |name: &str| json!([{"query": name}]);
    let head = json!({"extract": {"merchant": [{"path": "merchant"}], "amount": query("amount"),
        "currency": query("currency"), "order_no": query("order_no")}});
    let batch_max = [1, 2, 32][usize::from(choice / 2) % 3];
    json!({"servers": ["http://sluice_authz"], "batch_max": batch_max,
        "rules": [rule("body", json!({})), rule("head", head)]})
}

/// One of what is there.
fn choose(count: usize, choice: u8) -> Option<usize> {
    usize::from(choice).checked_rem(count)
}

/// What the servers decide about an order, whenever and how often they are asked.
fn decision(order: u32) -> Answer {
    match order % 4 {
        0 => refuses(),
        1 => delays(40),
        _ => passes("ADMITTED"),
    }
}

fn order_of(question: &BTreeMap<String, String>) -> u32 {
    question["order_no"].strip_prefix("o-").unwrap().parse().unwrap()
}

fn asked(call: &GrpcCall) -> Vec<BTreeMap<String, String>> {
    if call.path.ends_with("BatchCheck") { questions(call) } else { vec![question(call)] }
}

impl World {
    pub(crate) fn new() -> Self {
        let proxy = Proxy::configured(&configuration(0));
        Self {
            proxy,
            payments: Vec::new(),
            configurations: vec![ROOT],
            next_configuration: ROOT + 1,
            calls: Vec::new(),
            ledger: Ledger::default(),
            paid: BTreeSet::new(),
        }
    }

    pub(crate) fn happens(&mut self, event: Event) {
        match event {
            Event::Begin { configuration, pieces } => self.begin(configuration, pieces),
            Event::Piece(choice) => self.piece(choice),
            Event::Leave(choice) => {
                let open = self.having(|payment| !payment.is_over);
                if let Some(chosen) = choose(open.len(), choice) {
                    self.close(open[chosen], None, 1 << 14);
                }
            }
            Event::Gateway { payment, answer } => self.gateway(payment, answer),
            Event::Answer { call, answer } => {
                if let Some(chosen) = choose(self.calls.len(), call) {
                    let call = self.calls.remove(chosen);
                    self.answer(&call, answer);
                }
            }
            Event::Time(choice) if choice.is_multiple_of(2) => self.proxy.tick(),
            Event::Time(_) => self.proxy.tick_when_due(),
            Event::Configure(choice) => {
                let number = self.next_configuration;
                self.next_configuration += 1;
                assert!(self.proxy.configure_root(number, &configuration(choice)));
                self.configurations.push(number);
            }
            Event::Refuse => assert!(!self.proxy.configure_root(0, &json!({"servers": ["ftp://a"]}))),
            Event::Drop(choice) => self.drop_configuration(choice),
            Event::Panic => self.proxy.host_mut().panics = true,
            Event::EndWithin(ends) => self.proxy.host_mut().ends_within = ends,
        }
        for payment in &mut self.payments {
            payment.is_over |= self.proxy.filter(payment.context).is_none();
        }
        self.note_calls();
    }

    /// The payments of one kind.
    fn having(&self, is: impl Fn(&Payment) -> bool) -> Vec<usize> {
        (0..self.payments.len()).filter(|number| is(&self.payments[*number])).collect()
    }

    /// The servers act on what reaches them, whether or not their answer does.
    fn note_calls(&mut self) {
        for call in self.proxy.new_calls() {
            for question in asked(&call) {
                let attempt = question["attempt"].clone();
                match question["action"].as_str() {
                    "consume" if !order_of(&question).is_multiple_of(4) => {
                        self.ledger.charged.insert(attempt, order_of(&question));
                    }
                    "void" => drop(self.ledger.voided.insert(attempt)),
                    _ => {}
                }
            }
            self.calls.push(call);
        }
    }

    fn begin(&mut self, configuration: u8, pieces: u8) {
        let Some(chosen) = choose(self.configurations.len(), configuration) else { return };
        let configuration = self.configurations[chosen];
        let order = u32::try_from(self.payments.len()).unwrap();
        let pieces = usize::from(pieces % 4);
        let path = match pieces {
            0 => format!("/head/m?amount=5&currency=USD&order_no=o-{order}"),
            _ => "/body/m".to_owned(),
        };
        let headers = [(":method", "POST"), (":path", path.as_str()), ("content-type", "application/json")];
        let context = self.proxy.open_under(configuration, &headers);
        let body = format!(r#"{{"order_no": "o-{order}", "amount": 5, "currency": "USD"}}"#).into_bytes();
        let left = match body.len().checked_div(pieces) {
            None => Vec::new(),
            Some(size) => body.chunks(size + 1).rev().map(<[u8]>::to_vec).collect(),
        };
        self.proxy.headers(context, left.is_empty());
        self.payments.push(Payment { context, order, configuration, left, is_over: false });
    }

    /// Whether Envoy still has what arrives of the request pass the module.
    fn reads(&mut self, number: usize) -> bool {
        let payment = &self.payments[number];
        let (context, arrives) = (payment.context, !payment.is_over && !payment.left.is_empty());
        let stream = self.proxy.stream(context);
        arrives && stream.reply.is_none() && !stream.reset
    }

    fn piece(&mut self, choice: u8) {
        let reading: Vec<usize> = (0..self.payments.len()).filter(|number| self.reads(*number)).collect();
        let Some(chosen) = choose(reading.len(), choice) else { return };
        let payment = &mut self.payments[reading[chosen]];
        let piece = payment.left.pop().unwrap();
        let (context, ends) = (payment.context, payment.left.is_empty());
        // The end comes with the last piece, or with trailers.
        let has_trailers = payment.order.is_multiple_of(3);
        self.proxy.body(context, &piece, ends && !has_trailers);
        let stopped = self.proxy.filter(context).is_none() || self.proxy.stream(context).reply.is_some();
        if ends && has_trailers && !stopped {
            self.proxy.trailers(context);
        }
    }

    fn gateway(&mut self, payment: u8, answer: u8) {
        let open = self.having(|payment| !payment.is_over && payment.left.is_empty());
        let with: Vec<usize> =
            open.into_iter().filter(|number| self.proxy.reached_gateway(self.payments[*number].context)).collect();
        let Some(chosen) = choose(with.len(), payment) else { return };
        let (status, flags) = [(200, 0), (422, 0), (500, 0), (200, 1 << 23)][usize::from(answer % 4)];
        if (status, flags) == (200, 0) {
            self.paid.insert(self.payments[with[chosen]].order);
        }
        self.proxy.response_headers(self.payments[with[chosen]].context, status, 0);
        self.close(with[chosen], Some(status), flags);
    }

    fn close(&mut self, number: usize, status: Option<u16>, flags: u64) {
        let payment = &mut self.payments[number];
        payment.is_over = true;
        let context = payment.context;
        let reply = self.proxy.stream(context).reply.as_ref().map(|reply| reply.status);
        let status = reply.map_or(status, |reply| u16::try_from(reply).ok());
        self.proxy.close(context, status, flags);
    }

    fn answer(&mut self, call: &GrpcCall, answer: u8) {
        let failed = match answer % 8 {
            0 => Some(Answer::Failed(14)),
            1 => Some(Answer::Failed(4)),
            2 => Some(Answer::Bytes(b"no message".to_vec())),
            _ => None,
        };
        let answers = asked(call).into_iter().map(|question| match question["action"].as_str() {
            "consume" => decision(order_of(&question)),
            "void" => passes("VOIDED"),
            _ => passes("APPLIED"),
        });
        let answers: Vec<Answer> = answers.collect();
        let whole = if call.path.ends_with("BatchCheck") { batch(&answers) } else { answers[0].clone() };
        self.proxy.answer(call.token, &failed.unwrap_or(whole));
    }

    /// Envoy drops a configuration after its streams.
    fn drop_configuration(&mut self, choice: u8) {
        let used: BTreeSet<u32> =
            self.payments.iter().filter(|payment| !payment.is_over).map(|payment| payment.configuration).collect();
        let unused: Vec<u32> = self.configurations.iter().copied().filter(|own| !used.contains(own)).collect();
        if let Some(chosen) = choose(unused.len(), choice)
            && self.configurations.len() > 1
        {
            self.proxy.drop_root(unused[chosen]);
            self.configurations.retain(|own| *own != unused[chosen]);
        }
    }

    /// Everything that is under way comes to its end, and then the rules hold.
    pub(crate) fn end(mut self) {
        while (0..self.payments.len()).any(|number| self.reads(number)) {
            self.happens(Event::Piece(0));
        }
        for _ in 0..300 {
            for call in std::mem::take(&mut self.calls) {
                self.answer(&call, 7);
                self.note_calls();
            }
            self.proxy.tick_when_due();
            self.note_calls();
        }
        for number in 0..self.payments.len() {
            let context = self.payments[number].context;
            let is_over = self.proxy.filter(context).is_none();
            let reached = self.proxy.reached_gateway(context);
            let stream = self.proxy.stream(context);
            let decided = reached || stream.reply.is_some() || stream.reset;
            drop(stream);
            assert!(decided || is_over, "a payment waits for ever: {:?}", self.payments[number]);
        }
        let passed_on = |world: &mut Self, order: u32| {
            let payment = world.payments.iter().find(|payment| payment.order == order).unwrap();
            world.proxy.reached_gateway(payment.context)
        };
        for (attempt, order) in self.ledger.charged.clone() {
            let voided = self.ledger.voided.contains(&attempt);
            assert!(voided || passed_on(&mut self, order), "order {order} is charged and was not passed on");
            assert!(!voided || !self.paid.contains(&order), "order {order} is paid and voided");
        }
        for number in 0..self.payments.len() {
            if self.proxy.filter(self.payments[number].context).is_some() {
                self.close(number, Some(200), 0);
            }
        }
    }
}
