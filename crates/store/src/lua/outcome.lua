  -- The function `decide`, its end: the record, the event, and the new account and order.

  -- When no more events are taken, refusals and tombstones are not journalled either.
  if journal and (code > APPLIED or code == TOMBSTONED) and waiting[stream] >= backlog_max then
    journal = false
    if code > APPLIED then code = BACKLOG_FULL end
  end
  if account_changed and not dry then
    changes = changes + 1
  end
  local crossed
  if account_changed and watch then
    local marked, of_list = marked_by(watch, USED_BY_PLACE)
    if marked ~= marks or of_list ~= list then
      crossed = encode(CROSSING, marks, list, marked, of_list) .. watch
      marks, list = marked, of_list
    end
  end
  if dry then crossed = nil end
  local refused = code > APPLIED
  if dry then
    journal = noted and journal and refused
  end
  local account = account_value
  if account_changed or rolled or not account_value or (not old and byte(account_value) == PREVIOUS_FORMAT) then
    local account_flags = (suspended_at > 0 and ACCOUNT_SUSPENDED_FLAG or 0) + (pending > 0 and ACCOUNT_PENDING_FLAG or 0)
    local credit = on_credit and encode(CREDIT, cycle, exposure, unbilled) or ''
    account = packed_account(old, credit, day, week, de, we, me, ye, account_flags, marks, list, da, dc, wa, wc, ma, mc, ya, yc,
      changes, dr, wr, mr, yr, pending, paced_until, suspended_at)
  end
  local before = ''
  if account_changed then
    before = encode(BEFORE, da0, dc0, dr0, wa0, wc0, wr0, ma0, mc0, mr0, ya0, yc0, yr0, pending0)
    if on_credit then before = before .. encode(CREDIT_BEFORE, exposure0, unbilled0) end
  end
  local another = answer_id ~= decision_id
  local record_flags = (replay and RECORD_REPLAY_FLAG or 0) + (account_changed and RECORD_CHANGED_FLAG or 0)
    + (another and RECORD_OTHER_DECISION_FLAG or 0) + (merchant_suspended and RECORD_MERCHANT_SUSPENDED_FLAG or 0)
    + (code == IDEMPOTENCY_CONFLICT and RECORD_CONFLICTS_FLAG or 0) + (was_unknown and RECORD_WAS_UNKNOWN_FLAG or 0)
    + (counts and RECORD_WEIGHED_FLAG or 0)
  local first = code == IDEMPOTENCY_CONFLICT and encode(FIRST, first_amount or o_amount, o_currency) or ''
  local record = encode(RECORD, old and PREVIOUS_RECORD_FORMAT or RECORD_FORMAT, code, record_flags, state, until_at, amount,
    wait_ms, o_amount, settled, refunded) .. account .. before .. (another and answer_id or '') .. first
    .. (counts and encode(WEIGHED, bp, units, counts) or '')
  replies[2 * number - 1] = record
  if journal then
    waiting[stream] = waiting[stream] + 1
    closing[number] = account_changed and not dry and closed ~= '' and closed or nil
    crossing[number] = crossed
  else
    replies[2 * number] = ''
  end
  if account_changed and not dry then
    values[account_at] = account
  end
  if order_changed and not dry then
    local expires = min((state == HELD and max(now, until_at) or now) + ttl, U32_MAX)
    local has_tail = until_at > 0 or settled > 0 or refunded > 0 or operations ~= ''
    local order_flags = (pinned and ORDER_PINNED_FLAG or 0) + (has_tail and ORDER_HAS_TAIL_FLAG or 0)
      + (given_back and ORDER_GIVEN_BACK_FLAG or 0) + (unknown and ORDER_UNKNOWN_FLAG or 0)
      + (made and ORDER_MADE_FLAG or 0) + (doubted and ORDER_DOUBTED_FLAG or 0)
      + (o_cycle > 0 and ORDER_ON_CREDIT_FLAG or 0) + (o_bp and ORDER_WEIGHED_FLAG or 0)
    local credit = o_cycle > 0 and encode(ORDER_CYCLE, o_cycle) or ''
    local weight = o_bp and encode(WEIGHT, o_bp, o_units) or ''
    local tail = has_tail and encode(TAIL, until_at, settles, settled, refunded) or ''
    values[order_at] = packed_order(o_day, o_week, o_de, o_we, o_me, o_ye, state, order_flags, o_currency, o_amount, expires,
      o_decision, live, voided, credit, weight, tail, operations)
    -- No end after 2106 can be stored: such an order expires at once, and is kept for as long as another.
    local secs = expires > now and expires - now or ttl
    lifetimes[order_at] = secs ~= plain_secs and string.format('%.0f', secs) or nil
  end
  if not dry and ((order_changed and until_at > 0) or (op == EXPIRE and not order_changed and code ~= ADMITTED)) then
    -- An order that an expiry finds unknown, ended or of another currency is not one of the holds listed here.
    local merchant, order_no = string.match(KEYS[order_at], '^[^}]*}:o:([^:]*):(.*)$')
    local member = merchant .. ':' .. (order_changed and o_currency or currency) .. ':' .. order_no
    expiring[member], expiry_of[member] = order_changed and state == HELD and until_at or false, expiries + stream
  end
  return refused
end

return decide, decide_merchant, failure
end

