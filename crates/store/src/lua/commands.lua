-- Deciding the call's commands one after the other, and writing what they changed.

local decide, decide_merchant, failure

for number = 1, commands do
  local packed = replies[2 * number - 1]
  local op, account_at, order_at, merchant_at, stream, watch_at, right_at, backlog_max, asked, dc_max, wc_max, mc_max, yc_max, da_max,
    wa_max, ma_max, ya_max, asked_ms, head, plain_order = decode(COMMAND, packed)
  local account_value, order_value = values[account_at], values[order_at]
  stream_of[number] = stream

  -- A plain charge of a new order on an account without anything out of the ordinary: only the usage is computed.
  local version = (op == PLAIN or op == PLAIN_CREDIT) and account_value and byte(account_value)
  local plain = version and not order_value and #account_value == account_len(version)
    and (version ~= PREVIOUS_FORMAT or previous) and (version >= CREDIT_FORMAT) == (op == PLAIN_CREDIT)
    and waiting[stream] < backlog_max and asked_ms <= store_ms and asked_ms >= store_ms - LAG_MS_MAX
    and is_quiet(values[merchant_at])
  if plain then
    local on_credit = op == PLAIN_CREDIT
    local _, own_head, da, dc, wa, wc, ma, mc, ya, yc, changes, cycle, exposure, unbilled, from =
      decode(on_credit and HEADED_CREDIT or HEADED, account_value)
    plain = own_head == head and not breaks(asked, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max,
      wa_max, ma_max, ya_max)
    -- Without a credit line, the end of what was read comes where its cycle would be.
    from = from or cycle
    if on_credit and plain then
      local terms_cycle, credit_max = decode(PLAIN_TERMS, packed, COMMAND_LEN + 1)
      plain = cycle == terms_cycle and exposure <= credit_max - asked and unbilled <= AMOUNT_MAX - asked
      plain_order = sub(packed, PLAIN_ORDER_AT, (COMMAND_LEN + ORDER_CYCLE_LEN))
    end
    if plain then
      local rest = from <= #account_value and sub(account_value, from)
      if on_credit then
        account_value = encode(HEADED_CREDIT, version, head, da + asked, dc + 1, wa + asked, wc + 1, ma + asked, mc + 1, ya + asked,
          yc + 1, changes + 1, cycle, exposure + asked, unbilled + asked)
      else
        account_value = encode(HEADED, version, head, da + asked, dc + 1, wa + asked, wc + 1, ma + asked, mc + 1, ya + asked, yc + 1,
          changes + 1)
      end
      if rest then account_value = account_value .. rest end
      values[account_at], values[order_at], replies[2 * number - 1] = account_value, plain_order, account_value
      waiting[stream] = waiting[stream] + 1
    end
  end

  if not plain and not decide then
    decide, decide_merchant, failure = rule()
  end
  local early = not plain and decode('<d', packed, SINCE_AT) > store_ms
  local failed = not plain and not early and failure(stream, account_at, order_at, merchant_at, right_at)
  if early and all_or_none then
    values, expiring = { unpack(stored) }, {}
    for other = 1, commands do
      replies[2 * other - 1], replies[2 * other] = NOT_BEGUN .. encode('<d', store_ms), ''
    end
    break
  elseif early then
    replies[2 * number - 1], replies[2 * number] = NOT_BEGUN .. encode('<d', store_ms), ''
  elseif failed and all_or_none then
    return redis.error_reply(failed)
  elseif failed then
    replies[2 * number - 1], replies[2 * number] = FAILED .. failed, ''
  elseif op == SUSPEND_MERCHANT or op == RESUME_MERCHANT then
    decide_merchant(number, packed, op == SUSPEND_MERCHANT, merchant_at, stream, asked_ms)
  elseif not plain and decide(number, packed, op, account_at, order_at, merchant_at, stream, watch_at, right_at, backlog_max, asked,
    dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max, asked_ms, head, plain_order) and all_or_none then
    -- Nothing is done. The refusal is journalled; the others get the code of a refused batch.
    local record, event = replies[2 * number - 1], replies[2 * number]
    values, expiring = { unpack(stored) }, {}
    for other = 1, commands do
      replies[2 * other - 1], replies[2 * other] = REFUSED, ''
    end
    replies[2 * number - 1], replies[2 * number] = record, event
    break
  end
end

-- Holds and rights are listed first, then come the events: if Redis refuses either, as with a full memory, nothing of that shard
-- was changed. A listed hold or right that does not exist is skipped.
for member, ends_at in pairs(expiring) do
  local key = expiry_of[member]
  local done = ends_at and pcall('ZADD', KEYS[key], ends_at, member)
  if type(done) == 'table' then broken[(key - expiries - 1) % streams + 1] = done.err end
end
for number = 1, commands do
  local record, context, closed, crossed = replies[2 * number - 1], replies[2 * number], closing[number], crossing[number]
  local counted_in = counting[number]
  local stream = stream_of[number]
  if context ~= '' and not broken[stream] then
    local id
    if closed or crossed then
      id = pcall('XADD', KEYS[places + stream], '0-*', 'c', context, 'd', record, 'w', closed or '', 'a', crossed or '')
    elseif counted_in then
      id = pcall('XADD', KEYS[places + stream], '0-*', 'c', context, 'd', record, 'o', counted_in)
    else
      id = pcall('XADD', KEYS[places + stream], '0-*', 'c', context, 'd', record)
    end
    if type(id) == 'table' then broken[stream] = id.err end
    replies[2 * number] = id
  end
end
if next(broken) then
  for number = 1, commands do
    local why = broken[stream_of[number]]
    if why then
      local _, account_at, order_at, merchant_at, _, _, right_at = decode(COMMAND, ARGV[2 * number + 1])
      values[account_at], values[order_at] = stored[account_at], stored[order_at]
      values[merchant_at], values[right_at] = stored[merchant_at], stored[right_at]
      replies[2 * number - 1], replies[2 * number] = FAILED .. why, ''
    end
  end
end

local changed, size = { unpack(KEYS) }, 0
for place = orders + 1, places do
  local value = values[place]
  if value and value ~= stored[place] then
    changed[size + 1], changed[size + 2], size = KEYS[place], value, size + 2
  elseif not value and stored[place] then
    call('DEL', KEYS[place])
  end
end
if size > 0 then
  call('MSET', unpack(changed, 1, size))
end
for place = 1, orders do
  if values[place] ~= stored[place] then
    call('SET', KEYS[place], values[place], 'EX', lifetimes[place] or plain_lifetime)
  end
end
for member, ends_at in pairs(expiring) do
  local key = expiry_of[member]
  if not ends_at and not broken[(key - expiries - 1) % streams + 1] then
    -- What stays listed because of an error is skipped too.
    pcall('ZREM', KEYS[key], member)
  end
end
return table.concat(replies, '\n')
