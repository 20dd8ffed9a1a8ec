//! A payment's bytes: written once for a connection, and patched for each order at fixed places.

use super::plan::{AMOUNT_MINOR, Payers, Plan};

/// Hexadecimal digits of a round, a connection and a number, with a dash between: every order number is equally long.
const ORDER_DIGITS: [usize; 3] = [4, 4, 8];
/// Length of an order number.
pub(super) const ORDER_BYTES: usize = 18;

/// One connection's request.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    order_at: usize,
    payer_at: Vec<usize>,
    payer_digits: usize,
    /// The order number in quotation marks, as an answer has to echo it.
    order: [u8; ORDER_BYTES + 2],
}

impl Template {
    pub(super) fn new(plan: &Plan, connection: usize) -> Self {
        let payer = Payers::name(plan.payers.prefix, 0);
        let order = [b'"'; ORDER_BYTES + 2];
        let before = format!("{{\"merchant_id\":\"{payer}\",\"order_no\":\"");
        let after = format!("\",\"amount\":{AMOUNT_MINOR},\"currency\":\"USD\",\"description\":\"");
        let padding = plan.body_bytes.saturating_sub(before.len() + ORDER_BYTES + after.len() + 2);
        let length = before.len() + ORDER_BYTES + after.len() + padding + 2;
        let header = if plan.merchant_header { format!("x-merchant-id: {payer}\r\n") } else { String::new() };
        let head = format!(
            "POST /v1/payments HTTP/1.1\r\nhost: payments\r\ncontent-type: application/json\r\n{header}content-length: {length}\r\n\r\n"
        );
        let order_at = head.len() + before.len();
        let mut bytes = [head.as_bytes(), before.as_bytes(), &[b'0'; ORDER_BYTES], after.as_bytes()].concat();
        bytes.resize(bytes.len() + padding, b'.');
        bytes.extend_from_slice(b"\"}");
        let payer_at = places(&bytes, payer.as_bytes()).map(|at| at + plan.payers.prefix.len()).collect();
        let mut template =
            Self { bytes, order_at, payer_at, payer_digits: payer.len() - plan.payers.prefix.len(), order };
        template.put_order([plan.round, connection as u64, 0]);
        template
    }

    /// Makes it the payment of this order by this merchant.
    pub(super) fn set(&mut self, plan: &Plan, connection: usize, order: u64) {
        self.put_order([plan.round, connection as u64, order]);
        let payer = plan.payer(connection, order);
        for at in &self.payer_at {
            if let Some(place) = self.bytes.get_mut(*at..*at + self.payer_digits) {
                write_digits(place, payer as u64, 10);
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The order number in quotation marks.
    pub(super) fn order(&self) -> &[u8] {
        &self.order
    }

    fn put_order(&mut self, parts: [u64; 3]) {
        let mut at = 1;
        for (part, digits) in parts.into_iter().zip(ORDER_DIGITS) {
            if let Some(place) = self.order.get_mut(at..at + digits) {
                write_digits(place, part, 16);
            }
            at += digits;
            if let Some(dash) = self.order.get_mut(at).filter(|_| at < ORDER_BYTES) {
                *dash = b'-';
            }
            at += 1;
        }
        let order = &self.order[1..=ORDER_BYTES];
        if let Some(place) = self.bytes.get_mut(self.order_at..self.order_at + ORDER_BYTES) {
            place.copy_from_slice(order);
        }
    }
}

/// Writes a number with leading zeros; digits that have no place are left out at the front.
fn write_digits(place: &mut [u8], mut number: u64, base: u64) {
    for digit in place.iter_mut().rev() {
        *digit = char::from_digit((number % base) as u32, base as u32).map_or(b'0', |digit| digit as u8);
        number /= base;
    }
}

fn places(text: &[u8], part: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memmem::find_iter(text, part).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::plan::Stop;
    use super::*;

    #[test]
    fn a_request_is_patched_in_place() {
        let payers = Payers { prefix: "load-", count: 1_000_000 };
        let address = ([127, 0, 0, 1], 1).into();
        let mut plan = Plan::new(address, 4, Stop::Payments { each: 1 }, payers, 0x2a);
        plan.merchant_header = true;
        let mut template = Template::new(&plan, 3);
        for (order, payer) in [(0, "load-750000"), (249_999, "load-999999"), (250_000, "load-000000")] {
            template.set(&plan, 3, order);
            let text = String::from_utf8(template.bytes().to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("x-merchant-id: {payer}\r\n")), "{head}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            assert_eq!(body.len(), plan.body_bytes);
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let order_no = format!("002a-0003-{order:08x}");
            assert_eq!(body["merchant_id"], payer);
            assert_eq!(body["order_no"], order_no.as_str());
            assert_eq!(template.order(), format!("\"{order_no}\"").as_bytes());
        }
    }

    #[test]
    fn a_body_has_the_size_that_was_asked_for() {
        for body_bytes in [250, 1_024, 262_144] {
            let payers = Payers { prefix: "deny-", count: 1 };
            let stop = Stop::Payments { each: 1 };
            let plan = Plan { body_bytes, ..Plan::new(([127, 0, 0, 1], 1).into(), 1, stop, payers, 1) };
            let template = Template::new(&plan, 0);
            let body = template.bytes().windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
            assert_eq!(template.bytes().len() - body, body_bytes);
        }
    }
}
