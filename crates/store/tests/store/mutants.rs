//! Mutants of the script (mutation testing): each is a text of the script to replace, its replacement, and a seed.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_store::SCRIPT;
use testkit::redis::Redis;

use crate::{AT_A_TIME, run_sequence, seeds};

/// The seed, one of `seeds.txt`, is tried first: its sequence notices the mutant early. Where it does not any more, the others are
/// tried, and the test prints the seed to put here.
type Mutant = (&'static str, &'static str, u64);

const MUTANTS: &[Mutant] = &[
    // What the rarest commands show, first: so none of them is waited for alone at the end.
    ("state == STATE_VOIDED or operation(operations, { [RELEASED] = true })", "state == STATE_VOIDED", 254626543745070),
    ("max(#live / ID_LEN, 1)", "#live / ID_LEN", 98874054367055),
    ("while at and at % ID_LEN ~= 1 do", "while false do", 148283482181625),
    ("op = holds and o_currency == currency and VOID or REFUND", "op = holds and VOID or REFUND", 284793643570306),
    ("store_ms = min(store_ms, NOW_MS_MAX)\n", "", 79071098081645),
    ("elseif given_back or state == STATE_VOIDED then", "elseif given_back then", 74708515413768),
    (" + (pending > 0 and ACCOUNT_PENDING_FLAG or 0)", "", 59131731495560),
    ("what == CAPTURE and operation(operations, { [CAPTURE] = true }, OPERATION_ID_AT, id)", "false", 32482411130413),
    ("and not (marked and state == HELD) then", "then", 22181224809847),
    (" and asked_ms >= store_ms - LAG_MS_MAX", "", 277908825174538),
    // Credit lines.
    ("if exposure > limit - amount then", "if exposure > limit then", 148283482181625),
    ("exposure > uncapped - amount and", "exposure > uncapped and", 148283482181625),
    (
        "if terms_cycle > 0 and (not on_credit or terms_cycle > cycle) then",
        "if terms_cycle > 0 and not on_credit then",
        79071098081645,
    ),
    ("if cycle > 0 then closed = closed", "if true then closed = closed", 148283482181625),
    (
        "rolled, on_credit, cycle, unbilled = true, true, terms_cycle, 0",
        "rolled, on_credit, cycle = true, true, terms_cycle",
        79071098081645,
    ),
    (
        "rolled, on_credit, cycle, unbilled = true, true, terms_cycle, 0",
        "on_credit, cycle, unbilled = true, terms_cycle, 0",
        277908825174538,
    ),
    ("if not code and on_credit then", "if not code and on_credit and op == CONSUME then", 148283482181625),
    ("elseif on_credit and terms_cycle == 0\n", "elseif terms_cycle == 0\n", 102471886157031),
    ("elseif on_credit and terms_cycle == 0\n", "elseif on_credit\n", 102471886157031),
    (
        "      and flags % (2 * COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG) >= COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG then",
        "      then",
        148283482181625,
    ),
    (
        "exposure, o_cycle = exposure + amount, cycle else o_cycle = 0 end",
        "exposure, o_cycle = exposure + amount, cycle end",
        74708515413768,
    ),
    ("if on_credit and op == CONSUME then unbilled", "if on_credit then unbilled", 148283482181625),
    ("exposure = max(exposure - less, -AMOUNT_MAX)", "exposure = max(exposure - less, 0)", 74708515413768),
    ("if o_cycle == cycle then unbilled", "if true then unbilled", 79071098081645),
    ("unbilled = max(unbilled - billed, 0)", "unbilled = unbilled - billed", 20759026535188),
    (
        "unbilled, o_cycle = min(unbilled + captured, AMOUNT_MAX), cycle",
        "unbilled = min(unbilled + captured, AMOUNT_MAX)",
        270393978422389,
    ),
    ("unbilled, o_cycle = min(unbilled + captured, AMOUNT_MAX), cycle", "o_cycle = cycle", 148283482181625),
    (
        "release_credit(o_amount, state == CHARGED and o_amount or settled)",
        "release_credit(o_amount, o_amount)",
        148283482181625,
    ),
    ("      release_credit(held, 0)\n", "", 74708515413768),
    ("        bill(held)\n", "", 23131015164721),
    ("          bill(amount)\n", "", 148283482181625),
    ("          release_credit(returned, 0)\n", "", 148283482181625),
    ("exposure = min(exposure + more, AMOUNT_MAX)", "exposure = exposure + 0", 199851132994713),
    ("release_credit(taken, taken)", "release_credit(taken, 0)", 23131015164721),
    ("release_credit(amount, amount)", "release_credit(amount, 0)", 148283482181625),
    ("local raises = kind == REVERSAL or kind == TRANSFER_OUT", "local raises = kind == TRANSFER_OUT", 148283482181625),
    (" or kind == OPENING\n", "\n", 46218876197238),
    (
        "if known and o_amount == amount and o_currency == currency then",
        "if known and o_amount == amount then",
        199851132994713,
    ),
    (
        "elseif not on_credit then\n        code = CREDIT_UNKNOWN",
        "elseif false then\n        code = CREDIT_UNKNOWN",
        277908825174538,
    ),
    ("if amount == 0 or exposure", "if exposure", 148283482181625),
    ("kind ~= RECOVERY and -amount or 0", "-amount", 21886801327003),
    ("elseif kind == TRANSFER_OUT and suspended then", "elseif suspended then", 148283482181625),
    (
        "code = kind == TRANSFER_OUT and exceeds(exposure, amount, credit_max, uncapped_max) or APPLIED",
        "code = APPLIED",
        270393978422389,
    ),
    ("          if kind == TRANSFER_OUT then unbilled = min(unbilled + amount, AMOUNT_MAX) end\n", "", 148283482181625),
    (
        "known, state, o_amount = true, CHARGED, amount\n",
        "known, state, o_amount = true, OPEN, amount\n",
        148283482181625,
    ),
    (
        "before = before .. encode(CREDIT_BEFORE, exposure0, unbilled0)",
        "before = before .. encode(CREDIT_BEFORE, exposure0, unbilled)",
        148283482181625,
    ),
    (
        "o_cycle > 0 and encode(ORDER_CYCLE, o_cycle) or ''",
        "o_cycle > 0 and encode(ORDER_CYCLE, cycle) or ''",
        79071098081645,
    ),
    ("plain = cycle == terms_cycle and exposure", "plain = exposure", 74708515413768),
    ("exposure <= credit_max - asked and", "exposure <= credit_max and", 74708515413768),
    (
        "changes + 1, cycle, exposure + asked, unbilled + asked)",
        "changes + 1, cycle, exposure + asked, unbilled)",
        148283482181625,
    ),
    (
        "sub(packed, PLAIN_ORDER_AT, (COMMAND_LEN + ORDER_CYCLE_LEN))",
        "sub(packed, PLAIN_ORDER_AT, COMMAND_LEN)",
        148283482181625,
    ),
    // Weights.
    (
        "flags % (2 * COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG) >= COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG then",
        "flags >= COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG then",
        98828888286464,
    ),
    ("if amount <= 0 then return 0 end", "", 98828888286464),
    ("(amount - rest) / WEIGHT_WHOLE_BP * bp + (share", "amount * bp / WEIGHT_WHOLE_BP + (share", 98828888286464),
    ("share = rest * bp + (WEIGHT_WHOLE_BP - 1)", "share = rest * bp", 98828888286464),
    ("/ WEIGHT_WHOLE_BP + units, AMOUNT_MAX)", "/ WEIGHT_WHOLE_BP, AMOUNT_MAX)", 98828888286464),
    ("/ WEIGHT_WHOLE_BP + units, AMOUNT_MAX)", "/ WEIGHT_WHOLE_BP + units, 2 * AMOUNT_MAX)", 98828888286464),
    ("+ (flags >= ORDER_WEIGHED_FLAG and WEIGHT_LEN or 0)", "", 98828888286464),
    (
        "on_credit = flags % (2 * ORDER_ON_CREDIT_FLAG) >= ORDER_ON_CREDIT_FLAG",
        "on_credit = flags >= ORDER_ON_CREDIT_FLAG",
        98828888286464,
    ),
    (
        "if f % (2 * ORDER_ON_CREDIT_FLAG) >= ORDER_ON_CREDIT_FLAG then",
        "if f >= ORDER_ON_CREDIT_FLAG then",
        98828888286464,
    ),
    ("local taken = counts or amount", "local taken = amount", 98828888286464),
    (
        "breaks(taken, dc, wc, mc, yc, da, wa, ma, ya, dc_max",
        "breaks(amount, dc, wc, mc, yc, da, wa, ma, ya, dc_max",
        98828888286464,
    ),
    (
        "breaks(taken, dc, wc, mc, yc, da, wa, ma, ya, decode",
        "breaks(amount, dc, wc, mc, yc, da, wa, ma, ya, decode",
        98828888286464,
    ),
    ("pending > pending_max - taken", "pending > pending_max - amount", 98828888286464),
    ("on_expiry, pending + taken", "on_expiry, pending + amount", 98828888286464),
    ("da + taken, dc + 1, wa + taken, wc + 1", "da + amount, dc + 1, wa + taken, wc + 1", 98828888286464),
    ("ma + taken, mc + 1, ya + taken, yc + 1", "ma + taken, mc + 1, ya + amount, yc + 1", 98828888286464),
    ("doubted, o_bp, o_units = false, false, false, bp, units", "doubted = false, false, false", 98828888286464),
    ("      bp, units, counts = o_bp, o_units, o_bp and counted(o_amount, o_bp, o_units)\n", "", 98828888286464),
    ("(state == CHARGED and o_amount or settled + held)", "(state == CHARGED and o_amount or settled)", 98828888286464),
    ("(state == CHARGED and o_amount or settled + held)", "o_amount", 262269748148876),
    (
        "if byte(operations, place) == REFUNDED then net",
        "if byte(operations, place) == RESERVATION then net",
        98828888286464,
    ),
    ("if byte(operations, place) == REFUNDED then net", "if false then net", 262269748148876),
    (
        "counted(held, o_bp, o_units) - counted(held - less, o_bp, o_units) or less",
        "counted(less, o_bp, o_units) or less",
        98828888286464,
    ),
    (
        "less = counted(net, o_bp, o_units) - counted(net - less, o_bp, o_units)",
        "less = counted(less, o_bp, o_units)",
        98828888286464,
    ),
    ("bp, units, counts = o_bp, o_units, less\n      end", "end", 98828888286464),
    (
        "pending = max(pending - counts_of_held(held), 0)\n      state, unknown",
        "pending = max(pending - held, 0)\n      state, unknown",
        98828888286464,
    ),
    (
        "pending = max(pending - counts_of_held(held), 0)\n      state = settled",
        "pending = max(pending - held, 0)\n      state = settled",
        98828888286464,
    ),
    ("        local less = counts_of_held(held)\n", "        local less = held\n", 98828888286464),
    ("        if o_bp then bp, units, counts = o_bp, o_units, less end\n", "", 98828888286464),
    (
        "counted(net + more, o_bp, o_units) - counted(net, o_bp, o_units) or more",
        "counted(more, o_bp, o_units) or more",
        98828888286464,
    ),
    ("counts_of_held(min(held, amount) + returned)", "counts_of_held(min(held, amount)) + returned", 98828888286464),
    ("counts = freed - counts + more_counts", "counts = freed + more_counts", 98828888286464),
    ("da + more_counts, wa + more_counts", "da + more, wa + more_counts", 98828888286464),
    ("+ (o_bp and ORDER_WEIGHED_FLAG or 0)", "+ (bp and ORDER_WEIGHED_FLAG or 0)", 98828888286464),
    ("o_bp and encode(WEIGHT, o_bp, o_units) or ''", "o_bp and encode(WEIGHT, o_bp, 0) or ''", 98828888286464),
    // The store's time.
    ("min(max(asked_ms, store_ms - LAG_MS_MAX), store_ms)", "max(asked_ms, store_ms - LAG_MS_MAX)", 148283482181625),
    ("min(max(asked_ms, store_ms - LAG_MS_MAX), store_ms)", "min(asked_ms, store_ms)", 148283482181625),
    ("min(max(asked_ms, store_ms - LAG_MS_MAX), store_ms)", "store_ms", 148283482181625),
    ("and asked_ms <= store_ms and asked_ms", "and asked_ms", 277908825174538),
    ("not plain and decode('<d', packed, SINCE_AT) > store_ms", "false", 148283482181625),
    ("SINCE_AT) > store_ms", "SINCE_AT) >= store_ms", 74708515413768),
    ("SINCE_AT) > store_ms", "SINCE_AT) > store_ms + 999", 79071098081645),
    ("if early and all_or_none then", "if false then", 270393978422389),
    (
        "values, expiring = { unpack(stored) }, {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = N",
        "for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = N",
        98656951755096,
    ),
    ("if day > own_day and store_ms < until_ms then", "if false then", 199851132994713),
    ("if day > own_day and store_ms < until_ms then", "if day > own_day then", 74708515413768),
    (
        "if day > own_day and store_ms < until_ms then",
        "if day >= own_day and store_ms < until_ms then",
        148283482181625,
    ),
    (
        "if day > own_day and store_ms < until_ms then",
        "if day > own_day and store_ms <= until_ms then",
        199851132994713,
    ),
    (
        "local epoch = BROUGHT_BACK_EPOCH + changes % BROUGHT_BACK_EPOCHS",
        "local epoch = BROUGHT_BACK_EPOCH",
        199851132994713,
    ),
    ("day, de = own_day, epoch", "day = own_day", 199851132994713),
    ("if month > own_month then month, me = own_month, epoch end", "", 199851132994713),
    ("if month > own_month then month, me = own_month, epoch end", "month, me = own_month, epoch", 270393978422389),
    ("if year > own_year then year, ye = own_year, epoch end", "", 199851132994713),
    ("if year > own_year then year, ye = own_year, epoch end", "year, ye = own_year, epoch", 79071098081645),
    ("paced_until = min(paced_until, now_ms * 1000)", "", 148283482181625),
    // Windows.
    ("if day > sd then de, da, dc, dr = 0, 0, 0, 0", "if day >= sd then de, da, dc, dr = 0, 0, 0, 0", 148283482181625),
    ("if day > sd then de, da, dc, dr = 0, 0, 0, 0", "if day > sd then de, da, dc = 0, 0, 0", 148283482181625),
    (
        "if month > sm then me, ma, mc, mr = 0, 0, 0, 0 else month = sm end",
        "if month ~= sm then me, ma, mc, mr = 0, 0, 0, 0 end",
        148283482181625,
    ),
    ("if year > sy then ye,", "if year > sy then _,", 277908825174538),
    ("closed_window(DAY, day, sd, de, da, dc, dr)", "closed_window(DAY, day, day, de, da, dc, dr)", 148283482181625),
    ("encode(CLOSED, period, id, epoch, amount", "encode(CLOSED, period, now_id, epoch, amount", 148283482181625),
    (".. closed_window(MONTH, month, sm, me, ma, mc, mr)", "", 79071098081645),
    ("rolled = day > sd or week > sw", "rolled = false", 148283482181625),
    ("rolled = day > sd or week > sw", "rolled = day > sd", 148283482181625),
    // Weeks.
    ("if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end", "week = max(week, sw)", 148283482181625),
    (
        "if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end",
        "if week > sw then wa, wc, wr = 0, 0, 0 else week = sw end",
        148283482181625,
    ),
    (
        "if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end",
        "if week ~= sw then we, wa, wc, wr = 0, 0, 0, 0 end",
        148283482181625,
    ),
    ("closed_window(WEEK, week, sw, we, wa, wc, wr)", "closed_window(WEEK, week, sw, we, da, wc, wr)", 148283482181625),
    ("if o_week == week and o_we == we then", "if o_week == week then", 284793643570306),
    ("if o_week == week and o_we == we then", "if true then", 277908825174538),
    ("if w == week and ew == we then wr", "if w == week then wr", 46218876197238),
    ("then wa, wc = max(wa - less, 0)", "then wa, wc = wa", 148283482181625),
    ("if wc > wc_max - 1", "if wc > wc_max", 148283482181625),
    ("if wa > wa_max - amount", "if wa >= wa_max - amount", 284793643570306),
    ("dc + 1, wa + taken, wc + 1", "dc + 1, wa + taken, wc", 148283482181625),
    ("da + more_counts, wa + more_counts, ma", "da + more_counts, wa, ma", 148283482181625),
    (" or wr > AMOUNT_MAX - amount", "", 74708515413768),
    ("dr + amount, wr + amount, mr", "dr + amount, wr, mr", 148283482181625),
    ("if week > own_week then week, we = own_week, epoch end", "", 199851132994713),
    ("if week > own_week then week, we = own_week, epoch end", "week, we = own_week, epoch", 270393978422389),
    ("if windows >= RESET_WEEK then we, wa, wc, wr", "if windows >= RESET_WEEK then _, wa, wc, wr", 148283482181625),
    (
        "if week_over then marks = without_level(without_level(marks, WEEKLY_COUNT_PLACE), WEEKLY_AMOUNT_PLACE) end",
        "",
        79071098081645,
    ),
    (
        "if week_over then marks = without_level(without_level(marks, WEEKLY_COUNT_PLACE), WEEKLY_AMOUNT_PLACE) end",
        "marks = without_level(without_level(marks, WEEKLY_COUNT_PLACE), WEEKLY_AMOUNT_PLACE)",
        79071098081645,
    ),
    (
        "wa + asked, wc + 1, ma + asked, mc + 1, ya + asked, yc",
        "wa, wc + 1, ma + asked, mc + 1, ya + asked, yc",
        79071098081645,
    ),
    ("day, week, month, year, de, we, me, ye\n", "day, 0, month, year, de, we, me, ye\n", 148283482181625),
    ("amount, day, week, de, we, me, ye, decision_id)", "amount, day, 0, de, we, me, ye, decision_id)", 79071098081645),
    ("taken, d, w, e1, ew, e2, e3, first)", "taken, d, 0, e1, ew, e2, e3, first)", 277908825174538),
    // Orders and attempts.
    ("any_time or expires > now then", "any_time or expires >= now then", 277908825174538),
    ("until not ask_journal", "until true", 148283482181625),
    ("any_time or expires > now then", "expires > now then", 148283482181625),
    ("o_amount == amount and o_currency == currency and (state", "o_amount == amount and (state", 79071098081645),
    (" and (state ~= CHARGED) == (op == HOLD)", "", 74708515413768),
    (
        "code, replay, answer_id, journal = ADMITTED, true, o_decision, false",
        "code, replay, journal = ADMITTED, true, false",
        148283482181625,
    ),
    ("if same and not barred and position(live, attempt) then", "if false then", 148283482181625),
    ("elseif waiting[stream] >= backlog_max and", "elseif waiting[stream] > backlog_max and", 148283482181625),
    ("  if journal then\n    waiting[stream] = waiting[stream] + 1\n", "  if journal then\n", 148283482181625),
    (
        "if voided ~= '' and position(voided, attempt) then\n      barred",
        "if false then\n      barred",
        148283482181625,
    ),
    // What takes no charge, not even a repetition.
    ("if same and not barred and position", "if same and position", 79071098081645),
    ("elseif barred then\n      code = barred\n", "", 148283482181625),
    ("elseif given_back or state == STATE_VOIDED then", "elseif state == STATE_VOIDED then", 79071098081645),
    ("elseif charged and suspended and", "elseif suspended and", 277908825174538),
    ("elseif charged and suspended and", "elseif false and", 79071098081645),
    ("live, given_back = '', true", "live = ''", 222175860179620),
    (
        "account_changed, given_back, unknown, made = true, true, false, true",
        "account_changed, unknown, made = true, false, true",
        79071098081645,
    ),
    ("            given_back = true\n", "", 79071098081645),
    ("(given_back and ORDER_GIVEN_BACK_FLAG or 0)", "0", 79071098081645),
    ("f % (2 * ORDER_GIVEN_BACK_FLAG) >= ORDER_GIVEN_BACK_FLAG", "false", 79071098081645),
    ("suspended_at > 0 or merchant_suspended\n", "suspended_at > 0\n", 79071098081645),
    ("suspended_at > 0 or merchant_suspended\n", "merchant_suspended\n", 148283482181625),
    ("is_quiet(values[merchant_at])", "true", 74708515413768),
    ("(suspended_at > 0) ~= suspends", "true", 98656951755096),
    ("  if changed and not dry then\n    changes", "  if changed then\n    changes", 23131015164721),
    ("    changes = changes + 1\n    values[merchant_at]", "    values[merchant_at]", 79071098081645),
    ("(merchant_suspended and RECORD_MERCHANT_SUSPENDED_FLAG or 0)", "0", 79071098081645),
    // Repetitions that a rule lets through.
    ("(pinned or max(#live / ID_LEN, 1) > replays_max)", "(max(#live / ID_LEN, 1) > replays_max)", 74708515413768),
    (
        "(pinned or max(#live / ID_LEN, 1) > replays_max)",
        "(pinned or max(#live / ID_LEN, 1) >= replays_max)",
        74708515413768,
    ),
    ("if #live < ATTEMPTS_LEN_MAX", "if #live <= ATTEMPTS_LEN_MAX", 148283482181625),
    ("if #voided > ATTEMPTS_LEN_MAX", "if #voided >= ATTEMPTS_LEN_MAX", 79071098081645),
    ("elseif refusal == POLICY_MISSING then", "elseif false then", 277908825174538),
    ("elseif suspended then\n      code", "elseif false then\n      code", 148283482181625),
    ("    elseif refusal ~= 0 then\n      code = refusal\n", "", 79071098081645),
    ("live ~= '' or pinned or", "live ~= '' or", 284793643570306),
    ("or state == SETTLED or not charged or operations ~= ''", "or state == SETTLED or not charged", 148283482181625),
    (
        "elseif charged and o_currency ~= currency and (live_at or reservation) then",
        "elseif false then",
        148283482181625,
    ),
    ("o_currency ~= currency and (live_at or reservation)", "o_currency ~= currency and live_at", 79071098081645),
    ("give_back(o_amount, 1)", "give_back(o_amount, 0)", 148283482181625),
    ("if o_day == day and o_de == de then", "if o_day == day then", 148283482181625),
    ("if o_month == month and o_me == me then", "if true then", 148283482181625),
    ("ya, yc = max(ya - less, 0)", "ya, yc = ya - less", 79071098081645),
    // Limits.
    ("if dc > dc_max - 1", "if dc > dc_max", 20759026535188),
    ("if mc > mc_max - 1", "if mc >= mc_max - 1", 199851132994713),
    ("if da > da_max - amount", "if da >= da_max - amount", 284793643570306),
    ("if ya > ya_max - amount", "if ya > ya_max", 148283482181625),
    ("if ma > ma_max - amount", "if ma > ma_max + amount", 148283482181625),
    ("pending > pending_max - taken", "pending >= pending_max - taken", 74708515413768),
    ("ma + taken, mc + 1, ya + taken", "ma, mc + 1, ya + taken", 148283482181625),
    // Pace.
    ("max(paced_until, now_us)", "now_us", 148283482181625),
    ("now_us - tolerance, 0) + 999", "now_us, 0) + 999", 148283482181625),
    ("tolerance, 0) + 999", "tolerance, 0)", 148283482181625),
    ("if wait_ms > delay_max", "if wait_ms >= delay_max", 148283482181625),
    ("else paced_until = turn + interval end", "else paced_until = now_us + interval end", 98656951755096),
    ("code = breaks(taken, dc, wc, mc, yc, da, wa, ma, ya, decode(MAXIMA, packed, at))", "code = nil", 148283482181625),
    // Holds.
    ("on_expiry, pending + taken", "on_expiry, pending", 148283482181625),
    ("min(now + lifetime_secs, U32_MAX), on_expiry", "min(now + lifetime_secs, U32_MAX), 0", 74708515413768),
    ("give_back(held, settled == 0 and 1 or 0)", "give_back(held, 1)", 23131015164721),
    ("state = settled == 0 and STATE_VOIDED or SETTLED", "state = STATE_VOIDED", 23131015164721),
    ("pending = max(pending - counts_of_held(held), 0)\n      state = settled", "state = settled", 79071098081645),
    ("elseif until_at > now then", "elseif until_at >= now then", 23131015164721),
    ("settled, state = o_amount, SETTLED", "settled, state = held, SETTLED", 20759026535188),
    (
        "local place = operation(operations, { [CAPTURE] = true }, OPERATION_ID_AT, id)",
        "local place = operation(operations, { [CAPTURE] = true, [REFUNDED] = true }, OPERATION_ID_AT, id)",
        277908825174538,
    ),
    ("if asked < 0 or asked == taken then", "if true then", 148283482181625),
    ("APPLIED, true, first, false, taken", "APPLIED, true, decision_id, false, taken", 148283482181625),
    ("code, first_amount = IDEMPOTENCY_CONFLICT, taken", "code = IDEMPOTENCY_CONFLICT", 148283482181625),
    ("(more > allowed and", "(more >= allowed + 1 + allowed and", 98656951755096),
    // What the gateway has captured already.
    ("(more > allowed and percent < REPORTED)", "more > allowed", 277908825174538),
    ("(percent < REPORTED or asked < 0 or state == CHARGED)", "true", 148283482181625),
    // Orders that are unknown to the store, and a full backlog.
    ("(not known or (state == OPEN and o_amount == 0))", "not known", 277908825174538),
    ("if not any_time or voided == '' then", "if true then", 277908825174538),
    ("(code > APPLIED or code == TOMBSTONED) and waiting", "code > APPLIED and waiting", 148283482181625),
    ("if code > APPLIED then code = BACKLOG_FULL end", "", 148283482181625),
    ("(o_amount - rest) / 100 * percent + ", "", 222175860179620),
    ("local closes = marked or left == 0", "local closes = marked", 148283482181625),
    ("local returned = closes and left or 0", "local returned = 0", 148283482181625),
    ("counts_of_held(min(held, amount) + returned)", "counts_of_held(min(held, amount))", 148283482181625),
    ("wa + more_counts, ma + more_counts, ya + more_counts", "wa + more_counts, ma + more_counts, ya", 148283482181625),
    // Extensions.
    ("elseif extended <= until_at then", "elseif extended < until_at then", 277908825174538),
    ("held, extended\n", "held, until_at\n", 79071098081645),
    (
        "(op <= EXPIRE or op == EXTEND_HOLD) and o_currency ~= currency",
        "op <= EXPIRE and o_currency ~= currency",
        148283482181625,
    ),
    // Refunds.
    ("elseif op == REFUND and voided ~= '' and position(voided, attempt) then", "elseif false then", 148283482181625),
    ("(marked and owner == attempt)", "marked", 79071098081645),
    ("give_back(taken, 0)", "give_back(amount, 1)", 199851132994713),
    ("local next_kind = marked and RESERVATION or REFUNDED", "local next_kind = kind", 199851132994713),
    ("- refunded, 0)\n        if asked", ", 0)\n        if asked", 79071098081645),
    ("if amount > left or left == 0 then", "if amount > left then", 79071098081645),
    ("dr > daily_max - amount", "dr >= daily_max - amount", 79071098081645),
    ("mr > monthly_max - amount", "mr > monthly_max", 148283482181625),
    ("wr + amount, mr + amount, yr + amount", "wr + amount, mr + amount, yr", 148283482181625),
    (
        "          if not marked then\n            given_back",
        "          if true then\n            given_back",
        148283482181625,
    ),
    // Unknown outcomes.
    (
        "doubted, o_cycle = f % (2 * ORDER_DOUBTED_FLAG) >= ORDER_DOUBTED_FLAG, 0",
        "doubted, o_cycle = false, 0",
        148283482181625,
    ),
    (
        "doubted, o_cycle = f % (2 * ORDER_DOUBTED_FLAG) >= ORDER_DOUBTED_FLAG, 0",
        "doubted = f % (2 * ORDER_DOUBTED_FLAG) >= ORDER_DOUBTED_FLAG",
        32482411130413,
    ),
    ("f % (2 * ORDER_MADE_FLAG) >= ORDER_MADE_FLAG", "false", 148283482181625),
    ("local was_unknown = unknown or doubted", "local was_unknown = unknown", 148283482181625),
    (
        "      unknown, made, doubted, o_bp, o_units = false, false, false, bp, units\n      o_currency",
        "      o_currency",
        74708515413768,
    ),
    ("      state, unknown = OPEN, false\n", "      state = OPEN\n", 79071098081645),
    ("        end_hold()\n        unknown, made = false, true\n", "        end_hold()\n", 222175860179620),
    (
        "          add_operation(CAPTURE, id)\n          unknown, made = false, true\n",
        "          add_operation(CAPTURE, id)\n",
        148283482181625,
    ),
    (
        "account_changed, given_back, unknown, made = true, true, false, true",
        "account_changed, given_back = true, true",
        199851132994713,
    ),
    ("what == NOT_MADE and known and state == OPEN then", "what == NOT_MADE and state == OPEN then", 79071098081645),
    ("code, order_changed = APPLIED, not made\n", "code, order_changed = APPLIED, true\n", 277908825174538),
    (
        "replay, journal = not (unknown and order_changed), unknown and order_changed",
        "replay, journal = not order_changed, order_changed",
        148283482181625,
    ),
    ("if made or operations ~= '' or", "if operations ~= '' or", 284793643570306),
    ("if made or operations ~= '' or", "if made or", 74708515413768),
    ("sub(voided .. live, -ATTEMPTS_LEN_MAX), '', false\n", "voided .. live, '', false\n", 79071098081645),
    ("sub(voided .. live, -ATTEMPTS_LEN_MAX), '', false\n", "voided, '', false\n", 79071098081645),
    ("if of_charge then amount = o_amount end", "", 148283482181625),
    ("local done = position(voided, attempt) or (of_charge", "local done = (of_charge", 79071098081645),
    ("(of_charge and (made or unknown))", "(of_charge and unknown)", 148283482181625),
    (
        "what == REFUNDED and operation(operations, { [REFUNDED] = true }, OPERATION_ID_AT, id)",
        "what == REFUNDED and operation(operations, { [REFUNDED] = true, [RESERVATION] = true }, OPERATION_ID_AT, id)",
        45119407482760,
    ),
    ("if of_charge then unknown = true else doubted = true end", "unknown = true", 79071098081645),
    ("if d == day and e1 == de then dr", "if d == day then dr", 148283482181625),
    ("if m == month and e2 == me then mr", "if true then mr", 199851132994713),
    ("max(refunded - taken, 0)", "refunded", 277908825174538),
    ("if place and o_currency == currency then", "if false then", 169455117474457),
    ("        add_operation(RELEASED, end_id)\n", "", 79071098081645),
    ("      elseif place then\n        released_before(place)\n", "", 79071098081645),
    ("local end_id = attempt", "local end_id = decision_id", 148283482181625),
    // Accounts.
    ("or value > AMOUNT_MAX then", "then", 222175860179620),
    ("if value < 0 or", "if", 148283482181625),
    ("[TRANSACTIONS_TODAY_COUNTER] = dc", "[TRANSACTIONS_TODAY_COUNTER] = mc", 148283482181625),
    ("[WEEKLY_USED_COUNTER] = wa", "[WEEKLY_USED_COUNTER] = da", 79071098081645),
    (
        "used[TRANSACTIONS_MONTH_COUNTER], used[TRANSACTIONS_YEAR_COUNTER]",
        "mc, used[TRANSACTIONS_YEAR_COUNTER]",
        79071098081645,
    ),
    (
        "if windows % (2 * RESET_DAY) == RESET_DAY then de, da, dc, dr = (de + 1) % EPOCHS, 0, 0, 0 end",
        "if windows % (2 * RESET_DAY) == RESET_DAY then de, da, dc, dr = de, 0, 0, 0 end",
        148283482181625,
    ),
    ("(de + 1) % EPOCHS", "math.min(de + 1, 255)", 74708515413768),
    (
        "if windows % (2 * RESET_YEAR) >= RESET_YEAR then ye, ya, yc, yr",
        "if windows % (2 * RESET_YEAR) >= RESET_YEAR then ye, ya, yr, _",
        148283482181625,
    ),
    ("op == SUSPEND and max(now_ms, 1) or 0", "op == SUSPEND and 1 or 0", 148283482181625),
    (
        "code, account_changed, replay, journal = APPLIED, not account_value, account_value and true, not account_value",
        "code, account_changed = APPLIED, true",
        148283482181625,
    ),
    (
        "code, account_changed, replay, journal = APPLIED, changed, not changed, changed",
        "code, account_changed = APPLIED, true",
        148283482181625,
    ),
    // What is written.
    ("if account_changed and not dry then\n    changes", "if account_changed then\n    changes", 148283482181625),
    ("journal = noted and journal and refused", "journal = noted and journal", 148283482181625),
    ("if account_changed and not dry then\n    values", "if account_changed then\n    values", 148283482181625),
    ("if order_changed and not dry then", "if order_changed then", 148283482181625),
    ("(state == HELD and max(now, until_at) or now) + ttl", "now + ttl", 148283482181625),
    ("expires > now and expires - now or ttl", "expires - now", 79071098081645),
    (
        "local has_tail = until_at > 0 or settled > 0 or refunded > 0 or operations ~= ''",
        "local has_tail = operations ~= ''",
        148283482181625,
    ),
    ("order_changed and state == HELD and until_at or false", "until_at", 148283482181625),
    ("(order_changed and o_currency or currency)", "currency", 284793643570306),
    (
        "(order_changed and until_at > 0) or (op == EXPIRE",
        "(order_changed and state == HELD) or (op == EXPIRE",
        148283482181625,
    ),
    ("not order_changed and code ~= ADMITTED)", "false)", 148283482181625),
    // Batches.
    (
        "merchant_value = values[account_at], values[order_at], values[merchant_at]\n",
        "merchant_value = stored[account_at], values[order_at], values[merchant_at]\n",
        148283482181625,
    ),
    (
        "merchant_value = values[account_at], values[order_at], values[merchant_at]\n",
        "merchant_value = values[account_at], stored[order_at], values[merchant_at]\n",
        148283482181625,
    ),
    (
        "merchant_value = values[account_at], values[order_at], values[merchant_at]\n",
        "merchant_value = values[account_at], values[order_at], stored[merchant_at]\n",
        79071098081645,
    ),
    (
        "order_value = values[account_at], values[order_at]\n  s",
        "order_value = stored[account_at], values[order_at]\n  s",
        148283482181625,
    ),
    (
        "order_value = values[account_at], values[order_at]\n  s",
        "order_value = values[account_at], stored[order_at]\n  s",
        277908825174538,
    ),
    ("plain_order) and all_or_none then", "plain_order) and false then", 148283482181625),
    (
        "values, expiring = { unpack(stored) }, {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
        "expiring = {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
        148283482181625,
    ),
    (
        "values, expiring = { unpack(stored) }, {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
        "values = { unpack(stored) }\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
        79071098081645,
    ),
    (
        "local record, event = replies[2 * number - 1], replies[2 * number]\n",
        "local record, event = replies[2 * number - 1], ''\n",
        148283482181625,
    ),
    ("    replies[2 * number - 1], replies[2 * number] = record, event\n", "", 148283482181625),
    (
        "KEYS[places + stream], '0-*', 'c', context, 'd', record)",
        "KEYS[places + 1], '0-*', 'c', context, 'd', record)",
        148283482181625,
    ),
    ("false, expiries + stream", "false, expiries + 1", 148283482181625),
    ("    if closed or crossed then\n", "    if crossed then\n", 148283482181625),
    (
        "crossing[number] = crossed\n  else\n    replies[2 * number] = ''\n",
        "crossing[number] = crossed\n",
        148283482181625,
    ),
    ("local another = answer_id ~= decision_id", "local another = false", 148283482181625),
    ("history_len > 0 and sub(packed, -history_len) or ''", "''", 148283482181625),
    ("(day - day % 100) / 100, (day - day % 10000) / 10000", "(day - day % 100) / 100, 0", 79071098081645),
    ("for place = orders + 1, places do", "for place = orders + 2, places do", 148283482181625),
    ("if size > 0 then", "if size > 2 then", 148283482181625),
    ("if not ends_at and not broken[(key - expiries - 1) % streams + 1] then", "if false then", 148283482181625),
    // Thresholds.
    ("used > 0 and maximum < AMOUNT_MAX do", "used >= 0 and maximum < AMOUNT_MAX do", 277908825174538),
    ("used > 0 and maximum < AMOUNT_MAX do", "used > 0 do", 79071098081645),
    ("if used < (maximum - rest)", "if used <= (maximum - rest)", 277908825174538),
    ("local rounded = rest * percent + 99", "local rounded = rest * percent", 277908825174538),
    ("(maximum - rest) / 100 * percent + (rounded", "maximum / 100 * percent + (rounded", 277908825174538),
    ("from + 2 * level)", "from)", 277908825174538),
    ("marks > 0 and list or 0", "list", 277908825174538),
    ("if rolled and marks > 0 then", "if false then", 79071098081645),
    (
        "if day_over then marks = without_level(without_level(marks, DAILY_COUNT_PLACE), DAILY_AMOUNT_PLACE) end",
        "",
        79071098081645,
    ),
    (
        "if month_over then marks = without_level(without_level(marks, MONTHLY_COUNT_PLACE), MONTHLY_AMOUNT_PLACE) end",
        "marks = without_level(without_level(marks, MONTHLY_COUNT_PLACE), MONTHLY_AMOUNT_PLACE)",
        79071098081645,
    ),
    (
        "if year_over then marks = without_level(without_level(marks, YEARLY_COUNT_PLACE), YEARLY_AMOUNT_PLACE) end",
        "",
        79071098081645,
    ),
    ("if marks == 0 then list = 0 end", "", 79071098081645),
    ("(rolled or marked ~= marks or of_list ~= list) or false", "rolled or false", 79071098081645),
    (
        "(rolled or marked ~= marks or of_list ~= list) or false",
        "(rolled or marked ~= marks) or false",
        222175860179620,
    ),
    ("if marked ~= marks or of_list ~= list then", "if marked ~= marks then", 79071098081645),
    ("if marked ~= marks or of_list ~= list then", "if true then", 79071098081645),
    ("marks, list = marked, of_list\n    end", "end", 79071098081645),
    ("encode(CROSSING, marks, list, marked, of_list)", "encode(CROSSING, 0, 0, marked, of_list)", 79071098081645),
    ("if closed or crossed then\n", "if closed then\n", 79071098081645),
    // Plain charges.
    (
        "    dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max = decode(MAXIMA, packed, at)\n",
        "",
        23131015164721,
    ),
    ("and waiting[stream] < backlog_max", "and waiting[stream] <= backlog_max", 74708515413768),
    ("      waiting[stream] = waiting[stream] + 1\n    end", "    end", 79071098081645),
    ("local plain = version and not order_value and", "local plain = version and", 148283482181625),
    (" and (version >= CREDIT_FORMAT) == (op == PLAIN_CREDIT)", "", 74708515413768),
    ("plain = own_head == head and not", "plain = not", 277908825174538),
    (
        "plain = own_head == head and not breaks(asked, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max,\n      wa_max, ma_max, ya_max)",
        "plain = own_head == head",
        74708515413768,
    ),
    ("ma + asked, mc + 1, ya + asked, yc + 1,\n", "ma + asked, mc + 1, ya, yc + 1,\n", 79071098081645),
    ("          changes + 1)\n", "          changes)\n", 79071098081645),
    ("          yc + 1, changes + 1, cycle", "          yc + 1, changes, cycle", 148283482181625),
    (
        "wa + asked, wc + 1, ma + asked, mc + 1, ya + asked,\n",
        "wa, wc + 1, ma + asked, mc + 1, ya + asked,\n",
        148283482181625,
    ),
    ("and sub(account_value, from)\n", "and false\n", 79071098081645),
    // Rights.
    (
        "      if right then\n        code, replay, journal = APPLIED, true, false",
        "      if false then\n        code, replay, journal = APPLIED, true, false",
        15219540765203,
    ),
    (
        "      elseif waiting[stream] < backlog_max then\n        wanted",
        "      elseif true then\n        wanted",
        15219540765203,
    ),
    ("local until_ms = min(now_ms + lifetime, day_ends)", "local until_ms = now_ms + lifetime", 15219540765203),
    ("local until_ms = min(now_ms + lifetime, day_ends)", "local until_ms = day_ends", 15219540765203),
    ("min(wanted, room(da_max, da, above, share), ", "min(wanted, ", 121430083604963),
    ("room(wa_max, wa, above, share)", "wanted", 186023015688499),
    ("room(ma_max, ma, above, share)", "wanted", 11426959651299),
    ("room(ya_max, ya, above, share)", "wanted", 121430083604963),
    ("min(wanted_count, room(dc_max, dc, above, share), ", "min(wanted_count, ", 121430083604963),
    ("room(wc_max, wc, above, share)", "wanted_count", 121430083604963),
    ("room(mc_max, mc, above, share)", "wanted_count", 121430083604963),
    ("room(yc_max, yc, above, share)", "wanted_count", 121430083604963),
    ("previous or suspended or refusal ~= 0 or on_credit", "previous or refusal ~= 0 or on_credit", 121430083604963),
    ("previous or suspended or refusal ~= 0 or on_credit", "previous or suspended or on_credit", 15219540765203),
    ("refusal ~= 0 or on_credit or wanted", "refusal ~= 0 or wanted", 15219540765203),
    ("or wanted <= 0 or wanted_count", "or wanted_count", 15219540765203),
    ("or wanted_count <= 0 or until_ms", "or until_ms", 15219540765203),
    (" or until_ms <= now_ms then", " then", 15219540765203),
    ("or until_ms <= now_ms then", "or until_ms < now_ms then", 15219540765203),
    ("code, journal = RIGHT_REFUSED, false", "code = RIGHT_REFUSED", 15219540765203),
    (
        "da, dc, wa, wc = da + wanted, dc + wanted_count, wa + wanted, wc + wanted_count",
        "da, dc, wa, wc = da + wanted, dc + 1, wa + wanted, wc + wanted_count",
        15219540765203,
    ),
    (
        "ma, mc, ya, yc = ma + wanted, mc + wanted_count, ya + wanted, yc + wanted_count",
        "ma, mc, ya, yc = ma + wanted, mc + wanted_count, ya, yc + wanted_count",
        15219540765203,
    ),
    (
        "day, week, de, we, me, ye, r_bp, r_units, wanted, wanted_count, wanted, wanted_count,",
        "day, week, de, we, me, ye, WEIGHT_WHOLE_BP, 0, wanted, wanted_count, wanted, wanted_count,",
        15219540765203,
    ),
    (
        "day, week, de, we, me, ye, r_bp, r_units, wanted, wanted_count, wanted, wanted_count,",
        "day, week, 0, we, me, ye, r_bp, r_units, wanted, wanted_count, wanted, wanted_count,",
        121430083604963,
    ),
    ("code, account_changed, amount = APPLIED, true, wanted", "code, account_changed = APPLIED, true", 15219540765203),
    (
        "local free = max(left - percent_of(maximum, above), 0)",
        "local free = max(left - percent_of(left, above), 0)",
        186023015688499,
    ),
    (
        "return min(percent_of(left, share), (free - free % 2) / 2)",
        "return min(percent_of(left, share), free)",
        121430083604963,
    ),
    ("return min(percent_of(left, share), (free - free % 2) / 2)", "return (free - free % 2) / 2", 15219540765203),
    ("(free - free % 2) / 2)", "free / 2)", 121430083604963),
    ("elseif charged and suspended and op ~= REPORT then", "elseif charged and suspended then", 15219540765203),
    (
        "elseif waiting[stream] >= backlog_max and op ~= REPORT then",
        "elseif waiting[stream] >= backlog_max then",
        15219540765203,
    ),
    ("        right_counts = counted(amount, bp, units)\n", "        right_counts = amount\n", 15219540765203),
    ("      if right and left >= right_counts and", "      if right and left > right_counts and", 186026127913203),
    ("      if right and left >= right_counts and", "      if right and", 121430083604963),
    ("left >= right_counts and left_count > 0 then", "left >= right_counts then", 121430083604963),
    (
        "encode('<dd', left - right_counts, left_count - 1)",
        "encode('<dd', left - right_counts, left_count)",
        15219540765203,
    ),
    (
        "encode('<dd', left - right_counts, left_count - 1)",
        "encode('<dd', left - amount, left_count - 1)",
        15219540765203,
    ),
    ("        if not dry then values[right_at] = right end\n", "        values[right_at] = right\n", 186026127913203),
    ("counts, o_cycle = right_counts, 0", "counts, o_cycle = right_counts, cycle", 121430083604963),
    (
        "counts, account_changed = counted(amount, bp, units), true",
        "counts, account_changed = amount, true",
        15219540765203,
    ),
    ("        bp, units = decode(WEIGHT, packed, at)\n", "", 15219540765203),
    (
        "da, dc, wa, wc = min(da + counts, AMOUNT_MAX), min(dc + 1, AMOUNT_MAX)",
        "da, dc, wa, wc = da + counts, min(dc + 1, AMOUNT_MAX)",
        186023015688499,
    ),
    (
        "ma, mc, ya, yc = min(ma + counts, AMOUNT_MAX), min(mc + 1, AMOUNT_MAX)",
        "ma, mc, ya, yc = min(ma + amount, AMOUNT_MAX), min(mc + 1, AMOUNT_MAX)",
        15219540765203,
    ),
    ("o_day, o_week, o_de, o_we, o_me, o_ye, o_cycle = day, week, de, we, me, ye, 0", "o_cycle = 0", 15219540765203),
    (
        "exposure, unbilled, o_cycle = min(exposure + amount, AMOUNT_MAX), min(unbilled + amount, AMOUNT_MAX), cycle",
        "exposure, o_cycle = min(exposure + amount, AMOUNT_MAX), cycle",
        15219540765203,
    ),
    (
        "exposure, unbilled, o_cycle = min(exposure + amount, AMOUNT_MAX), min(unbilled + amount, AMOUNT_MAX), cycle",
        "o_cycle = cycle",
        15219540765203,
    ),
    ("      if bp == WEIGHT_WHOLE_BP then bp, units, counts = nil, nil, nil end\n", "", 15219540765203),
    (
        "elseif not right or (op == ORPHAN_RIGHT and byte(right, RIGHT_ORPHANED_AT) > 0) then",
        "elseif not right then",
        186023015688499,
    ),
    ("      code, amount = APPLIED, left\n", "      code = APPLIED\n", 15219540765203),
    ("account_changed, right = true, false", "account_changed = true", 15219540765203),
    ("if r_day == day and r_de == de then da", "if r_day == day then da", 186026127913203),
    ("if r_day == day and r_de == de then da", "if r_de == de then da", 15219540765203),
    ("if r_week == week and r_we == we then wa", "if r_we == we then wa", 15219540765203),
    ("if r_month == month and r_me == me then ma", "if r_me == me then ma", 15219540765203),
    ("if r_year == year and r_ye == ye then ya", "if r_ye == ye then ya", 121430083604963),
    ("dc = max(da - left, 0), max(dc - left_count, 0)", "dc = max(da - left, 0), max(dc - 1, 0)", 186026127913203),
    ("    if right ~= values[right_at] and not dry then\n", "    if right ~= values[right_at] then\n", 121430083604963),
    ("      if op ~= ORPHAN_RIGHT then\n", "      if right then\n", 15219540765203),
    (
        "right and decode('<d', right, RIGHT_UNTIL_AT), expiries + streams + stream",
        "right and 1, expiries + streams + stream",
        15219540765203,
    ),
    ("  elseif not value and stored[place] then\n    call('DEL', KEYS[place])\n", "", 11426959651299),
    ("if o_day ~= day or o_week", "if o_week", 121430083604963),
    ("o_week ~= week or o_de ~= de or", "o_week ~= week or", 121430083604963),
    ("op == RELEASE_RIGHT and marked and decode", "op == RELEASE_RIGHT and decode", 121430083604963),
];

/// Every mutant is noticed by one of the sequences; several mutants run at a time, each in a database of its own.
pub(crate) async fn check(redis: &Redis) {
    let seeds = seeds();
    for (right, _, first) in MUTANTS {
        assert_eq!(SCRIPT.matches(right).count(), 1, "{right:?} is to be found once in the script");
        assert!(seeds.contains(first), "{first}, which is to show {right:?}, is not in seeds.txt");
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut lanes = tokio::task::JoinSet::new();
    (0..AT_A_TIME).for_each(|lane| drop(lanes.spawn(results(redis.url(), lane, Arc::clone(&next)))));
    let results = lanes.join_all().await.concat();
    assert_eq!(results.len(), MUTANTS.len());
    // Not captured, as what `eprintln!` prints is: it costs time until the list is corrected.
    let mut stderr = std::io::stderr();
    for ((right, wrong, first), noticed_by) in &results {
        if let Some(seed) = noticed_by.filter(|seed| seed != first) {
            writeln!(stderr, "{seed} in place of {first} notices {right:?} -> {wrong:?}").unwrap();
        }
    }
    let missed: Vec<_> = results.iter().filter(|(_, noticed_by)| noticed_by.is_none()).collect();
    assert!(missed.is_empty(), "not noticed: {missed:#?}");
}

/// The mutants that one lane takes from the list, each with the seed whose sequence notices it.
async fn results(url: String, lane: usize, next: Arc<AtomicUsize>) -> Vec<(Mutant, Option<u64>)> {
    let mut results = Vec::new();
    while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
        results.push((*mutant, noticed_by(&url, lane, mutant).await));
    }
    results
}

/// The first seed whose sequence notices the mutant: its own, then those of the list.
async fn noticed_by(url: &str, lane: usize, (right, wrong, first): &Mutant) -> Option<u64> {
    let script = SCRIPT.replace(right, wrong);
    for seed in std::iter::once(*first).chain(seeds().into_iter().filter(|seed| seed != first)) {
        if run_sequence(url, lane, seed, &script).await.is_err() {
            return Some(seed);
        }
    }
    None
}
