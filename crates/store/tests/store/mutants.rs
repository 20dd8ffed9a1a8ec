//! Mutants of the script (mutation testing): each is a text of the script to replace, and its replacement.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_store::SCRIPT;
use testkit::redis::Redis;

use crate::{AT_A_TIME, run_sequence, seeds};

const MUTANTS: &[(&str, &str)] = &[
    // What the rarest commands show, first: so none of them is waited for alone at the end.
    ("state == STATE_VOIDED or operation(operations, { [RELEASED] = true })", "state == STATE_VOIDED"),
    ("max(#live / ID_LEN, 1)", "#live / ID_LEN"),
    ("while at and at % ID_LEN ~= 1 do", "while false do"),
    ("op = holds and o_currency == currency and VOID or REFUND", "op = holds and VOID or REFUND"),
    ("store_ms = min(store_ms, NOW_MS_MAX)\n", ""),
    ("elseif given_back or state == STATE_VOIDED then", "elseif given_back then"),
    (" + (pending > 0 and ACCOUNT_PENDING_FLAG or 0)", ""),
    ("what == CAPTURE and operation(operations, { [CAPTURE] = true }, OPERATION_ID_AT, id)", "false"),
    ("and not (marked and state == HELD) then", "then"),
    (" and asked_ms >= store_ms - LAG_MS_MAX", ""),
    // Credit lines.
    ("if exposure > limit - amount then", "if exposure > limit then"),
    ("exposure > uncapped - amount and", "exposure > uncapped and"),
    ("if terms_cycle and (not on_credit or terms_cycle > cycle) then", "if terms_cycle and not on_credit then"),
    ("if cycle > 0 then closed = closed", "if true then closed = closed"),
    (
        "rolled, on_credit, cycle, unbilled = true, true, terms_cycle, 0",
        "rolled, on_credit, cycle = true, true, terms_cycle",
    ),
    (
        "rolled, on_credit, cycle, unbilled = true, true, terms_cycle, 0",
        "on_credit, cycle, unbilled = true, terms_cycle, 0",
    ),
    ("if not code and on_credit then", "if not code and on_credit and op == CONSUME then"),
    ("elseif on_credit and not terms_cycle and flags >=", "elseif not terms_cycle and flags >="),
    ("elseif on_credit and not terms_cycle and flags >=", "elseif on_credit and flags >="),
    ("not terms_cycle and flags >= COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG then", "not terms_cycle then"),
    ("if flags % (2 * COMMAND_CREDIT_FLAG) >= COMMAND_CREDIT_FLAG then", "if flags >= COMMAND_CREDIT_FLAG then"),
    (
        "exposure, o_cycle = exposure + amount, cycle else o_cycle = 0 end",
        "exposure, o_cycle = exposure + amount, cycle end",
    ),
    ("if on_credit and op == CONSUME then unbilled", "if on_credit then unbilled"),
    ("exposure = max(exposure - less, -AMOUNT_MAX)", "exposure = max(exposure - less, 0)"),
    ("if o_cycle == cycle then unbilled", "if true then unbilled"),
    ("unbilled = max(unbilled - billed, 0)", "unbilled = unbilled - billed"),
    (
        "unbilled, o_cycle = min(unbilled + captured, AMOUNT_MAX), cycle",
        "unbilled = min(unbilled + captured, AMOUNT_MAX)",
    ),
    ("unbilled, o_cycle = min(unbilled + captured, AMOUNT_MAX), cycle", "o_cycle = cycle"),
    ("release_credit(o_amount, state == CHARGED and o_amount or settled)", "release_credit(o_amount, o_amount)"),
    ("      release_credit(held, 0)\n", ""),
    ("        bill(held)\n", ""),
    ("          bill(amount)\n", ""),
    ("          release_credit(returned, 0)\n", ""),
    ("exposure = min(exposure + more, AMOUNT_MAX)", "exposure = exposure + 0"),
    ("release_credit(taken, taken)", "release_credit(taken, 0)"),
    ("release_credit(amount, amount)", "release_credit(amount, 0)"),
    ("local raises = kind == REVERSAL or kind == TRANSFER_OUT", "local raises = kind == TRANSFER_OUT"),
    ("if known and o_amount == amount and o_currency == currency then", "if known and o_amount == amount then"),
    ("elseif not on_credit then\n        code = CREDIT_UNKNOWN", "elseif false then\n        code = CREDIT_UNKNOWN"),
    ("if amount == 0 or exposure", "if exposure"),
    ("kind ~= RECOVERY and -amount or 0", "-amount"),
    ("elseif kind == TRANSFER_OUT and suspended then", "elseif suspended then"),
    (
        "code = kind == TRANSFER_OUT and exceeds(exposure, amount, credit_max, uncapped_max) or APPLIED",
        "code = APPLIED",
    ),
    ("          if kind == TRANSFER_OUT then unbilled = min(unbilled + amount, AMOUNT_MAX) end\n", ""),
    ("known, state, o_amount = true, CHARGED, amount\n", "known, state, o_amount = true, OPEN, amount\n"),
    (
        "before = before .. encode(CREDIT_BEFORE, exposure0, unbilled0)",
        "before = before .. encode(CREDIT_BEFORE, exposure0, unbilled)",
    ),
    ("o_cycle > 0 and encode(ORDER_CYCLE, o_cycle) or ''", "o_cycle > 0 and encode(ORDER_CYCLE, cycle) or ''"),
    ("plain = cycle == terms_cycle and exposure", "plain = exposure"),
    ("exposure <= credit_max - asked and", "exposure <= credit_max and"),
    ("encode(CREDIT, cycle, exposure + asked, unbilled + asked)", "encode(CREDIT, cycle, exposure + asked, unbilled)"),
    // The store's time.
    ("min(max(asked_ms, store_ms - LAG_MS_MAX), store_ms)", "max(asked_ms, store_ms - LAG_MS_MAX)"),
    ("min(max(asked_ms, store_ms - LAG_MS_MAX), store_ms)", "min(asked_ms, store_ms)"),
    ("min(max(asked_ms, store_ms - LAG_MS_MAX), store_ms)", "store_ms"),
    ("and asked_ms <= store_ms and asked_ms", "and asked_ms"),
    ("not plain and decode('<d', packed, COMMAND_LEN + 1) > store_ms", "false"),
    ("COMMAND_LEN + 1) > store_ms", "COMMAND_LEN + 1) >= store_ms"),
    ("COMMAND_LEN + 1) > store_ms", "COMMAND_LEN + 1) > store_ms + 999"),
    ("if early and all_or_none then", "if false then"),
    (
        "values, expiring = { unpack(stored) }, {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = N",
        "for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = N",
    ),
    ("if day > own_day and store_ms < until_ms then", "if false then"),
    ("if day > own_day and store_ms < until_ms then", "if day > own_day then"),
    ("if day > own_day and store_ms < until_ms then", "if day >= own_day and store_ms < until_ms then"),
    ("if day > own_day and store_ms < until_ms then", "if day > own_day and store_ms <= until_ms then"),
    ("local epoch = BROUGHT_BACK_EPOCH + changes % BROUGHT_BACK_EPOCHS", "local epoch = BROUGHT_BACK_EPOCH"),
    ("day, de = own_day, epoch", "day = own_day"),
    ("if month > own_month then month, me = own_month, epoch end", ""),
    ("if month > own_month then month, me = own_month, epoch end", "month, me = own_month, epoch"),
    ("if year > own_year then year, ye = own_year, epoch end", ""),
    ("if year > own_year then year, ye = own_year, epoch end", "year, ye = own_year, epoch"),
    ("paced_until = min(paced_until, now_ms * 1000)", ""),
    // Windows.
    ("if day > sd then de, da, dc, dr = 0, 0, 0, 0", "if day >= sd then de, da, dc, dr = 0, 0, 0, 0"),
    ("if day > sd then de, da, dc, dr = 0, 0, 0, 0", "if day > sd then de, da, dc = 0, 0, 0"),
    (
        "if month > sm then me, ma, mc, mr = 0, 0, 0, 0 else month = sm end",
        "if month ~= sm then me, ma, mc, mr = 0, 0, 0, 0 end",
    ),
    ("if year > sy then ye,", "if year > sy then _,"),
    ("closed_window(DAY, day, sd, de, da, dc, dr)", "closed_window(DAY, day, day, de, da, dc, dr)"),
    ("encode(CLOSED, period, id, epoch, amount", "encode(CLOSED, period, now_id, epoch, amount"),
    (".. closed_window(MONTH, month, sm, me, ma, mc, mr)", ""),
    ("rolled = day > sd or week > sw", "rolled = false"),
    ("rolled = day > sd or week > sw", "rolled = day > sd"),
    // Weeks.
    ("if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end", "week = max(week, sw)"),
    (
        "if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end",
        "if week > sw then wa, wc, wr = 0, 0, 0 else week = sw end",
    ),
    (
        "if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end",
        "if week ~= sw then we, wa, wc, wr = 0, 0, 0, 0 end",
    ),
    ("closed_window(WEEK, week, sw, we, wa, wc, wr)", "closed_window(WEEK, week, sw, we, da, wc, wr)"),
    ("if o_week == week and o_we == we then", "if o_week == week then"),
    ("if o_week == week and o_we == we then", "if true then"),
    ("if w == week and ew == we then wr", "if w == week then wr"),
    ("then wa, wc = max(wa - less, 0)", "then wa, wc = wa"),
    ("if wc > wc_max - 1", "if wc > wc_max"),
    ("if wa > wa_max - amount", "if wa >= wa_max - amount"),
    ("dc + 1, wa + amount, wc + 1", "dc + 1, wa + amount, wc"),
    ("da + more, wa + more, ma", "da + more, wa, ma"),
    (" or wr > AMOUNT_MAX - amount", ""),
    ("dr + amount, wr + amount, mr", "dr + amount, wr, mr"),
    ("if week > own_week then week, we = own_week, epoch end", ""),
    ("if week > own_week then week, we = own_week, epoch end", "week, we = own_week, epoch"),
    ("if windows >= RESET_WEEK then we, wa, wc, wr", "if windows >= RESET_WEEK then _, wa, wc, wr"),
    ("if week_over then marks = without_level(without_level(marks, WEEKLY_COUNT_PLACE), WEEKLY_AMOUNT_PLACE) end", ""),
    (
        "if week_over then marks = without_level(without_level(marks, WEEKLY_COUNT_PLACE), WEEKLY_AMOUNT_PLACE) end",
        "marks = without_level(without_level(marks, WEEKLY_COUNT_PLACE), WEEKLY_AMOUNT_PLACE)",
    ),
    ("dc + 1, wa + asked, wc + 1", "dc + 1, wa, wc + 1"),
    ("day, week, month, year, de, we, me, ye\n", "day, 0, month, year, de, we, me, ye\n"),
    ("amount, day, week, de, we, me, ye, decision_id)", "amount, day, 0, de, we, me, ye, decision_id)"),
    ("taken, d, w, e1, ew, e2, e3, first)", "taken, d, 0, e1, ew, e2, e3, first)"),
    // Orders and attempts.
    ("any_time or expires > now then", "any_time or expires >= now then"),
    ("until not ask_journal", "until true"),
    ("any_time or expires > now then", "expires > now then"),
    ("o_amount == amount and o_currency == currency and (state", "o_amount == amount and (state"),
    (" and (state ~= CHARGED) == (op == HOLD)", ""),
    (
        "code, replay, answer_id, journal = ADMITTED, true, o_decision, false",
        "code, replay, journal = ADMITTED, true, false",
    ),
    ("if same and not barred and position(live, attempt) then", "if false then"),
    ("elseif waiting[stream] >= backlog_max then", "elseif waiting[stream] > backlog_max then"),
    ("  if journal then\n    waiting[stream] = waiting[stream] + 1\n", "  if journal then\n"),
    ("if voided ~= '' and position(voided, attempt) then\n      barred", "if false then\n      barred"),
    // What takes no charge, not even a repetition.
    ("if same and not barred and position", "if same and position"),
    ("elseif barred then\n      code = barred\n", ""),
    ("elseif given_back or state == STATE_VOIDED then", "elseif state == STATE_VOIDED then"),
    ("elseif charged and suspended then", "elseif suspended then"),
    ("elseif charged and suspended then", "elseif false then"),
    ("live, given_back = '', true", "live = ''"),
    (
        "account_changed, given_back, unknown, made = true, true, false, true",
        "account_changed, unknown, made = true, false, true",
    ),
    ("            given_back = true\n", ""),
    ("(given_back and ORDER_GIVEN_BACK_FLAG or 0)", "0"),
    ("f % (2 * ORDER_GIVEN_BACK_FLAG) >= ORDER_GIVEN_BACK_FLAG", "false"),
    ("suspended_at > 0 or merchant_suspended\n", "suspended_at > 0\n"),
    ("suspended_at > 0 or merchant_suspended\n", "merchant_suspended\n"),
    ("is_quiet(values[merchant_at])", "true"),
    ("(suspended_at > 0) ~= suspends", "true"),
    ("  if changed and not dry then\n    changes", "  if changed then\n    changes"),
    ("    changes = changes + 1\n    values[merchant_at]", "    values[merchant_at]"),
    ("(merchant_suspended and RECORD_MERCHANT_SUSPENDED_FLAG or 0)", "0"),
    // Repetitions that a rule lets through.
    ("(pinned or max(#live / ID_LEN, 1) > replays_max)", "(max(#live / ID_LEN, 1) > replays_max)"),
    ("(pinned or max(#live / ID_LEN, 1) > replays_max)", "(pinned or max(#live / ID_LEN, 1) >= replays_max)"),
    ("if #live < ATTEMPTS_LEN_MAX", "if #live <= ATTEMPTS_LEN_MAX"),
    ("if #voided > ATTEMPTS_LEN_MAX", "if #voided >= ATTEMPTS_LEN_MAX"),
    ("elseif refusal == POLICY_MISSING then", "elseif false then"),
    ("elseif suspended then\n      code", "elseif false then\n      code"),
    ("    elseif refusal ~= 0 then\n      code = refusal\n", ""),
    ("live ~= '' or pinned or", "live ~= '' or"),
    ("or state == SETTLED or not charged or operations ~= ''", "or state == SETTLED or not charged"),
    ("elseif charged and o_currency ~= currency and (live_at or reservation) then", "elseif false then"),
    ("o_currency ~= currency and (live_at or reservation)", "o_currency ~= currency and live_at"),
    ("give_back(o_amount, 1)", "give_back(o_amount, 0)"),
    ("if o_day == day and o_de == de then", "if o_day == day then"),
    ("if o_month == month and o_me == me then", "if true then"),
    ("ya, yc = max(ya - less, 0)", "ya, yc = ya - less"),
    // Limits.
    ("if dc > dc_max - 1", "if dc > dc_max"),
    ("if mc > mc_max - 1", "if mc >= mc_max - 1"),
    ("if da > da_max - amount", "if da >= da_max - amount"),
    ("if ya > ya_max - amount", "if ya > ya_max"),
    ("if ma > ma_max - amount", "if ma > ma_max + amount"),
    ("pending > pending_max - amount", "pending >= pending_max - amount"),
    ("ma + amount, mc + 1, ya + amount", "ma, mc + 1, ya + amount"),
    // Pace.
    ("max(paced_until, now_us)", "now_us"),
    ("now_us - tolerance, 0) + 999", "now_us, 0) + 999"),
    ("tolerance, 0) + 999", "tolerance, 0)"),
    ("if wait_ms > delay_max", "if wait_ms >= delay_max"),
    ("else paced_until = turn + interval end", "else paced_until = now_us + interval end"),
    ("code = breaks(amount, dc, wc, mc, yc, da, wa, ma, ya, decode(MAXIMA, packed, at))", "code = nil"),
    // Holds.
    ("on_expiry, pending + amount", "on_expiry, pending"),
    ("min(now + lifetime_secs, U32_MAX), on_expiry", "min(now + lifetime_secs, U32_MAX), 0"),
    ("give_back(held, settled == 0 and 1 or 0)", "give_back(held, 1)"),
    ("state = settled == 0 and STATE_VOIDED or SETTLED", "state = STATE_VOIDED"),
    ("pending = max(pending - held, 0)\n      state = settled", "state = settled"),
    ("elseif until_at > now then", "elseif until_at >= now then"),
    ("settled, state = o_amount, SETTLED", "settled, state = held, SETTLED"),
    (
        "local place = operation(operations, { [CAPTURE] = true }, OPERATION_ID_AT, id)",
        "local place = operation(operations, { [CAPTURE] = true, [REFUNDED] = true }, OPERATION_ID_AT, id)",
    ),
    ("if asked < 0 or asked == taken then", "if true then"),
    ("APPLIED, true, first, false, taken", "APPLIED, true, decision_id, false, taken"),
    ("code, first_amount = IDEMPOTENCY_CONFLICT, taken", "code = IDEMPOTENCY_CONFLICT"),
    ("(more > allowed and", "(more >= allowed + 1 + allowed and"),
    // What the gateway has captured already.
    ("(more > allowed and percent < REPORTED)", "more > allowed"),
    ("(percent < REPORTED or asked < 0 or state == CHARGED)", "true"),
    // Orders that are unknown to the store, and a full backlog.
    ("(not known or (state == OPEN and o_amount == 0))", "not known"),
    ("if not any_time or voided == '' then", "if true then"),
    ("(code > APPLIED or code == TOMBSTONED) and waiting", "code > APPLIED and waiting"),
    ("if code > APPLIED then code = BACKLOG_FULL end", ""),
    ("(o_amount - rest) / 100 * percent + ", ""),
    ("local closes = marked or left == 0", "local closes = marked"),
    ("local returned = closes and left or 0", "local returned = 0"),
    ("pending - min(held, amount) - returned", "pending - min(held, amount)"),
    ("wa + more, ma + more, ya + more", "wa + more, ma + more, ya"),
    // Extensions.
    ("elseif extended <= until_at then", "elseif extended < until_at then"),
    ("held, extended\n", "held, until_at\n"),
    ("(op <= EXPIRE or op == EXTEND_HOLD) and o_currency ~= currency", "op <= EXPIRE and o_currency ~= currency"),
    // Refunds.
    ("elseif op == REFUND and voided ~= '' and position(voided, attempt) then", "elseif false then"),
    ("(marked and owner == attempt)", "marked"),
    ("give_back(taken, 0)", "give_back(amount, 1)"),
    ("local next_kind = marked and RESERVATION or REFUNDED", "local next_kind = kind"),
    ("- refunded, 0)\n        if asked", ", 0)\n        if asked"),
    ("if amount > left or left == 0 then", "if amount > left then"),
    ("dr > daily_max - amount", "dr >= daily_max - amount"),
    ("mr > monthly_max - amount", "mr > monthly_max"),
    ("wr + amount, mr + amount, yr + amount", "wr + amount, mr + amount, yr"),
    ("          if not marked then\n            given_back", "          if true then\n            given_back"),
    // Unknown outcomes.
    ("doubted, o_cycle = f % (2 * ORDER_DOUBTED_FLAG) >= ORDER_DOUBTED_FLAG, 0", "doubted, o_cycle = false, 0"),
    (
        "doubted, o_cycle = f % (2 * ORDER_DOUBTED_FLAG) >= ORDER_DOUBTED_FLAG, 0",
        "doubted = f % (2 * ORDER_DOUBTED_FLAG) >= ORDER_DOUBTED_FLAG",
    ),
    ("f % (2 * ORDER_MADE_FLAG) >= ORDER_MADE_FLAG", "false"),
    ("local was_unknown = unknown or doubted", "local was_unknown = unknown"),
    ("        unknown, made, doubted = false, false, false\n        o_currency", "        o_currency"),
    ("      state, unknown = OPEN, false\n", "      state = OPEN\n"),
    ("        end_hold()\n        unknown, made = false, true\n", "        end_hold()\n"),
    (
        "          add_operation(CAPTURE, id)\n          unknown, made = false, true\n",
        "          add_operation(CAPTURE, id)\n",
    ),
    (
        "account_changed, given_back, unknown, made = true, true, false, true",
        "account_changed, given_back = true, true",
    ),
    ("what == NOT_MADE and known and state == OPEN then", "what == NOT_MADE and state == OPEN then"),
    ("code, order_changed = APPLIED, not made\n", "code, order_changed = APPLIED, true\n"),
    (
        "replay, journal = not (unknown and order_changed), unknown and order_changed",
        "replay, journal = not order_changed, order_changed",
    ),
    ("if made or operations ~= '' or", "if operations ~= '' or"),
    ("if made or operations ~= '' or", "if made or"),
    ("sub(voided .. live, -ATTEMPTS_LEN_MAX), '', false\n", "voided .. live, '', false\n"),
    ("sub(voided .. live, -ATTEMPTS_LEN_MAX), '', false\n", "voided, '', false\n"),
    ("if of_charge then amount = o_amount end", ""),
    ("local done = position(voided, attempt) or (of_charge", "local done = (of_charge"),
    ("(of_charge and (made or unknown))", "(of_charge and unknown)"),
    (
        "what == REFUNDED and operation(operations, { [REFUNDED] = true }, OPERATION_ID_AT, id)",
        "what == REFUNDED and operation(operations, { [REFUNDED] = true, [RESERVATION] = true }, OPERATION_ID_AT, id)",
    ),
    ("if of_charge then unknown = true else doubted = true end", "unknown = true"),
    ("if d == day and e1 == de then dr", "if d == day then dr"),
    ("if m == month and e2 == me then mr", "if true then mr"),
    ("max(refunded - taken, 0)", "refunded"),
    ("if place and o_currency == currency then", "if false then"),
    ("        add_operation(RELEASED, end_id)\n", ""),
    ("      elseif place then\n        released_before(place)\n", ""),
    ("local end_id = attempt", "local end_id = decision_id"),
    // Accounts.
    ("or value > AMOUNT_MAX then", "then"),
    ("if value < 0 or", "if"),
    ("[TRANSACTIONS_TODAY_COUNTER] = dc", "[TRANSACTIONS_TODAY_COUNTER] = mc"),
    ("[WEEKLY_USED_COUNTER] = wa", "[WEEKLY_USED_COUNTER] = da"),
    ("used[TRANSACTIONS_MONTH_COUNTER], used[TRANSACTIONS_YEAR_COUNTER]", "mc, used[TRANSACTIONS_YEAR_COUNTER]"),
    (
        "if windows % (2 * RESET_DAY) == RESET_DAY then de, da, dc, dr = (de + 1) % EPOCHS, 0, 0, 0 end",
        "if windows % (2 * RESET_DAY) == RESET_DAY then de, da, dc, dr = de, 0, 0, 0 end",
    ),
    ("(de + 1) % EPOCHS", "math.min(de + 1, 255)"),
    (
        "if windows % (2 * RESET_YEAR) >= RESET_YEAR then ye, ya, yc, yr",
        "if windows % (2 * RESET_YEAR) >= RESET_YEAR then ye, ya, yr, _",
    ),
    ("op == SUSPEND and max(now_ms, 1) or 0", "op == SUSPEND and 1 or 0"),
    (
        "code, account_changed, replay, journal = APPLIED, not account_value, account_value and true, not account_value",
        "code, account_changed = APPLIED, true",
    ),
    (
        "code, account_changed, replay, journal = APPLIED, changed, not changed, changed",
        "code, account_changed = APPLIED, true",
    ),
    // What is written.
    ("if account_changed and not dry then\n    changes", "if account_changed then\n    changes"),
    ("journal = noted and journal and refused", "journal = noted and journal"),
    ("if account_changed and not dry then\n    values", "if account_changed then\n    values"),
    ("if order_changed and not dry then", "if order_changed then"),
    ("(state == HELD and max(now, until_at) or now) + ttl", "now + ttl"),
    ("expires > now and expires - now or ttl", "expires - now"),
    (
        "local has_tail = until_at > 0 or settled > 0 or refunded > 0 or operations ~= ''",
        "local has_tail = operations ~= ''",
    ),
    ("order_changed and state == HELD and until_at or false", "until_at"),
    ("(order_changed and o_currency or currency)", "currency"),
    ("(order_changed and until_at > 0) or (op == EXPIRE", "(order_changed and state == HELD) or (op == EXPIRE"),
    ("not order_changed and code ~= ADMITTED)", "false)"),
    // Batches.
    (
        "merchant_value = values[account_at], values[order_at], values[merchant_at]\n",
        "merchant_value = stored[account_at], values[order_at], values[merchant_at]\n",
    ),
    (
        "merchant_value = values[account_at], values[order_at], values[merchant_at]\n",
        "merchant_value = values[account_at], stored[order_at], values[merchant_at]\n",
    ),
    (
        "merchant_value = values[account_at], values[order_at], values[merchant_at]\n",
        "merchant_value = values[account_at], values[order_at], stored[merchant_at]\n",
    ),
    (
        "order_value = values[account_at], values[order_at]\n  s",
        "order_value = stored[account_at], values[order_at]\n  s",
    ),
    (
        "order_value = values[account_at], values[order_at]\n  s",
        "order_value = values[account_at], stored[order_at]\n  s",
    ),
    ("plain_order) and all_or_none then", "plain_order) and false then"),
    (
        "values, expiring = { unpack(stored) }, {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
        "expiring = {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
    ),
    (
        "values, expiring = { unpack(stored) }, {}\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
        "values = { unpack(stored) }\n    for other = 1, commands do\n      replies[2 * other - 1], replies[2 * other] = R",
    ),
    (
        "local record, event = replies[2 * number - 1], replies[2 * number]\n",
        "local record, event = replies[2 * number - 1], ''\n",
    ),
    ("    replies[2 * number - 1], replies[2 * number] = record, event\n", ""),
    ("KEYS[places + stream], '0-*', 'c', context, 'd', record)", "KEYS[places + 1], '0-*', 'c', context, 'd', record)"),
    ("false, expiries + stream", "false, expiries + 1"),
    ("    if closed or crossed then\n", "    if crossed then\n"),
    ("crossing[number] = crossed\n  else\n    replies[2 * number] = ''\n", "crossing[number] = crossed\n"),
    ("local another = answer_id ~= decision_id", "local another = false"),
    ("history_len > 0 and sub(packed, -history_len) or ''", "''"),
    ("(day - day % 100) / 100, (day - day % 10000) / 10000", "(day - day % 100) / 100, 0"),
    ("for place = orders + 1, places do", "for place = orders + 2, places do"),
    ("if size > 0 then", "if size > 2 then"),
    ("if not ends_at and not broken[key - expiries] then", "if false then"),
    // Thresholds.
    ("used > 0 and maximum < AMOUNT_MAX do", "used >= 0 and maximum < AMOUNT_MAX do"),
    ("used > 0 and maximum < AMOUNT_MAX do", "used > 0 do"),
    ("if used < (maximum - rest)", "if used <= (maximum - rest)"),
    ("local rounded = rest * percent + 99", "local rounded = rest * percent"),
    ("(maximum - rest) / 100 * percent + (rounded", "maximum / 100 * percent + (rounded"),
    ("from + 2 * level)", "from)"),
    ("marks > 0 and list or 0", "list"),
    ("if rolled and marks > 0 then", "if false then"),
    ("if day_over then marks = without_level(without_level(marks, DAILY_COUNT_PLACE), DAILY_AMOUNT_PLACE) end", ""),
    (
        "if month_over then marks = without_level(without_level(marks, MONTHLY_COUNT_PLACE), MONTHLY_AMOUNT_PLACE) end",
        "marks = without_level(without_level(marks, MONTHLY_COUNT_PLACE), MONTHLY_AMOUNT_PLACE)",
    ),
    ("if year_over then marks = without_level(without_level(marks, YEARLY_COUNT_PLACE), YEARLY_AMOUNT_PLACE) end", ""),
    ("if marks == 0 then list = 0 end", ""),
    ("(rolled or marked ~= marks or of_list ~= list) or false", "rolled or false"),
    ("(rolled or marked ~= marks or of_list ~= list) or false", "(rolled or marked ~= marks) or false"),
    ("if marked ~= marks or of_list ~= list then", "if marked ~= marks then"),
    ("if marked ~= marks or of_list ~= list then", "if true then"),
    ("marks, list = marked, of_list\n    end", "end"),
    ("encode(CROSSING, marks, list, marked, of_list)", "encode(CROSSING, 0, 0, marked, of_list)"),
    ("if closed or crossed then\n", "if closed then\n"),
    // Plain charges.
    ("    dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max = decode(MAXIMA, packed, at)\n", ""),
    ("and waiting[stream] < backlog_max", "and waiting[stream] <= backlog_max"),
    ("      waiting[stream] = waiting[stream] + 1\n    end", "    end"),
    ("local plain = version and not order_value and", "local plain = version and"),
    (" and (version >= CREDIT_FORMAT) == (op == PLAIN_CREDIT)", ""),
    ("plain = own_head == head and not", "plain = not"),
    (
        "plain = own_head == head and not breaks(asked, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max,\n      wa_max, ma_max, ya_max)",
        "plain = own_head == head",
    ),
    ("ma + asked, mc + 1, ya + asked, yc + 1,\n", "ma + asked, mc + 1, ya, yc + 1,\n"),
    ("        changes + 1) .. rest", "        changes) .. rest"),
    ("rest = sub(account_value, from)\n", "rest = ''\n"),
];

/// Every mutant is noticed by one of the sequences; several mutants run at a time, each in a database of its own.
pub(crate) async fn check(redis: &Redis) {
    for (right, _) in MUTANTS {
        assert_eq!(SCRIPT.matches(right).count(), 1, "{right:?} is to be found once in the script");
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut lanes = tokio::task::JoinSet::new();
    (0..AT_A_TIME).for_each(|lane| drop(lanes.spawn(missed(redis.url(), lane, Arc::clone(&next)))));
    let missed = lanes.join_all().await.concat();
    assert!(missed.is_empty(), "not noticed: {missed:#?}");
}

/// The mutants that no sequence notices, of those that one lane takes from the list.
async fn missed(url: String, lane: usize, next: Arc<AtomicUsize>) -> Vec<(&'static str, &'static str)> {
    let mut missed = Vec::new();
    while let Some((right, wrong)) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
        if !is_noticed(&url, lane, &SCRIPT.replace(right, wrong)).await {
            missed.push((*right, *wrong));
        }
    }
    missed
}

async fn is_noticed(url: &str, lane: usize, script: &str) -> bool {
    for seed in seeds() {
        if run_sequence(url, lane, seed, script).await.is_err() {
            return true;
        }
    }
    false
}
