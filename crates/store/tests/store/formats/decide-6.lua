local KEYS, ARGV, call, pcall, decode, encode = KEYS, ARGV, redis.call, redis.pcall, struct.unpack, struct.pack
local type, unpack, byte, sub, find, max, min = type, unpack, string.byte, string.sub, string.find, math.max, math.min
local mode, orders, accounts, merchants, streams, watches, store_ms = decode('<BI2I2I2I2I2d', ARGV[1])
if store_ms < 0 then
  local time = call('TIME')
  local us = time[2] + 0
  store_ms = time[1] * 1000 + (us - us % 1000) / 1000
end
store_ms = min(store_ms, 8000000000000)
local all_or_none, previous, plain_lifetime, plain_secs = mode % 2 == 1, mode >= 2, ARGV[2], tonumber(ARGV[2])
local places = orders + accounts + merchants
local expiries = places + streams
local watches_from = #ARGV - watches
local commands = (watches_from - 2) / 2
local stored = call('MGET', unpack(KEYS, 1, places))
local values, lifetimes = { unpack(stored) }, {}
local expiring, expiry_of = {}, {}
local replies, closing, crossing = { unpack(ARGV, 3, watches_from) }, {}, {}
local stream_of, waiting, broken = { unpack(KEYS) }, {}, {}
for stream = 1, streams do
  local length = pcall('XLEN', KEYS[places + stream])
  if type(length) == 'table' then
    broken[stream], length = length.err, math.huge
  end
  waiting[stream] = length
end
local function position(list, id)
  local at = find(list, id, 1, true)
  while at and at % 16 ~= 1 do
    at = find(list, id, at + 1, true)
  end
  return at
end
local function operation(list, wanted, field, id)
  for at = 1, #list, 69 do
    local from = at + 16 * (field or 1) - 15
    if wanted[byte(list, at)] and (not id or sub(list, from, from + 15) == id) then
      return at
    end
  end
end
local function breaks(amount, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max)
  if dc > dc_max - 1 then return 30 end
  if wc > wc_max - 1 then return 38 end
  if mc > mc_max - 1 then return 31 end
  if yc > yc_max - 1 then return 32 end
  if da > da_max - amount then return 33 end
  if wa > wa_max - amount then return 39 end
  if ma > ma_max - amount then return 34 end
  if ya > ya_max - amount then return 35 end
end
local function month_and_year(day)
  return (day - day % 100) / 100, (day - day % 10000) / 10000
end
local function is_order(value)
  local format, len, operation_len, state_at = byte(value), 49, 69, 14
  if format == 4 then
    len, operation_len, state_at = 44, 64, 9
  elseif format ~= 6 then
    return false
  end
  if #value < len or byte(value, state_at) > 4 then return false end
  local flags, live, voided, operations = byte(value, state_at + 1), byte(value, len - 2, len)
  return #value == len + 16 * (live + voided) + (flags % 4 >= 2 and 21 + operation_len * operations or 0)
end
local function is_account(value)
  local format = byte(value)
  return format == 6 and #value == 152 or format == 4 and #value == 119
end
local function upgraded(operations)
  local list = {}
  for at = 1, #operations, 64 do
    list[#list + 1] = sub(operations, at, at + 44) .. '\0\0\0\0' .. sub(operations, at + 45, at + 45) .. '\0'
      .. sub(operations, at + 46, at + 64 - 1)
  end
  return table.concat(list)
end
local function downgraded(operations)
  local list = {}
  for at = 1, #operations, 69 do
    list[#list + 1] = sub(operations, at, at + 44) .. sub(operations, at + 49, at + 49)
      .. sub(operations, at + 51, at + 69 - 1)
  end
  return table.concat(list)
end
local function marked_by(watch, ...)
  local list, m1, m2, m3, m4, m5, m6, m7, m8, m9, count, from = decode('<I2dddddddddB', watch)
  local maxima, marks = { m1, m2, m3, m4, m5, m6, m7, m8, m9 }, 0
  for place = 9, 1, -1 do
    local used, maximum, level = select(place, ...), maxima[place], 0
    while level < count and used > 0 and maximum < 9007199254740991 do
      local percent = decode('<I2', watch, from + 2 * level)
      local rest = maximum % 100
      local rounded = rest * percent + 99
      if used < (maximum - rest) / 100 * percent + (rounded - rounded % 100) / 100 then break end
      level = level + 1
    end
    marks = marks * 16 + level
  end
  return marks, marks > 0 and list or 0
end
local function without_level(marks, place)
  local one = 16 ^ place
  return marks - (marks - marks % one) / one % 16 * one
end
local function is_merchant(value)
  return #value == 18 and byte(value) == 1
end
local function is_quiet(value)
  return not value or (is_merchant(value) and byte(value, 2) == 0)
end
local function unknown_format(what, value)
  return 'SLUICE ' .. what .. ' has another format (' .. (byte(value) or 'empty') .. '): upgrade by one release at a time'
end
local function failure(stream, account_at, order_at, merchant_at)
  local account, order, merchant = values[account_at], values[order_at], values[merchant_at]
  if broken[stream] then return broken[stream] end
  if account and not is_account(account) then return unknown_format('account', account) end
  if order and not is_order(order) then return unknown_format('order', order) end
  if merchant and not is_merchant(merchant) then return unknown_format('merchant', merchant) end
  if account_at == 0 then
    if not merchant and call('EXISTS', KEYS[merchant_at]) == 1 then return 'SLUICE merchant is no string' end
  elseif not account and call('EXISTS', KEYS[account_at]) == 1 then
    return 'SLUICE account is no string'
  end
end
local function time_of(asked_ms)
  return min(max(asked_ms, store_ms - 60000), store_ms)
end
local function decide_merchant(number, packed, suspends, merchant_at, stream, asked_ms)
  local now_ms = time_of(asked_ms)
  local dry = byte(packed, 184 + 13) % 2 == 1
  local value = values[merchant_at]
  local suspended_at, changes, _ = 0, 0
  if value then _, _, suspended_at, changes = decode('<BBdd', value) end
  local changed = (suspended_at > 0) ~= suspends
  if changed then suspended_at = suspends and max(now_ms, 1) or 0 end
  local flag = suspended_at > 0 and 1 or 0
  if changed and not dry then
    changes = changes + 1
    values[merchant_at] = encode('<BBdd', 1, flag, suspended_at, changes)
    waiting[stream] = waiting[stream] + 1
  else
    replies[2 * number] = ''
  end
  local head = encode('<BBBBI4ddddd', previous and 5 or 7, 4,
    (changed and 0 or 1) + 8 * flag, 0, 0, 0, 0, 0, 0, 0)
  if previous then
    replies[2 * number - 1] = head .. encode('<BI4BBBBI4I2ddddddddddddd', 4, 0, 0, 0, 0, flag, 0, 0, 0, 0, 0, 0, 0, 0,
      changes, 0, 0, 0, 0, 0, suspended_at)
  else
    replies[2 * number - 1] = head .. encode('<BI4I4BBBBBdI2dddddddddddddddd', 6, 0, 0, 0, 0, 0, 0, flag, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, changes,
      0, 0, 0, 0, 0, 0, suspended_at)
  end
end
local function decide(number, packed, op, account_at, order_at, merchant_at, stream, watch_at, backlog_max, asked, dc_max,
  wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max, asked_ms, head, plain_order)
  local day, week = decode('<xI4I4', head)
  local own_day, own_week, month, year = day, week, month_and_year(day)
  local currency, decision_id, attempt = decode('<xxxxxxxxxxxxxxxc3xxxxxxxxxxxxc16xxxc16', plain_order)
  local _, ttl, flags, refusal, replays_max, history_len, at = decode('<dI4BBBI2', packed, 184 + 1)
  local now_ms = time_of(asked_ms)
  local history = history_len > 0 and sub(packed, -history_len) or ''
  local dry, noted, paced, marked = flags % 2 == 1, flags % 4 >= 2, flags % 8 >= 4, flags >= 8
  local now = (now_ms - now_ms % 1000) / 1000
  local amount = max(asked, 0)
  if op == 0 then
    op = 1
    dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max = decode('<dddddddd', packed, at)
  end
  local watch = watch_at > 0 and ARGV[watches_from + watch_at]
  local account_value, order_value, merchant_value = values[account_at], values[order_at], values[merchant_at]
  local old = previous and not (account_value and byte(account_value) == 6)
  if old then
    if op == 1 or op == 2 then
      old = wc_max == 9007199254740991 and wa_max == 9007199254740991
    elseif op == 9 then
      old = byte(packed, at) < 10
    elseif op == 10 then
      old = byte(packed, at) < 8
    end
  end
  if old then week = 0 end
  local de, we, me, ye = 0, 0, 0, 0
  local da, dc, dr, wa, wc, wr, ma, mc, mr, ya, yc, yr = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
  local pending, paced_until, suspended_at, changes, marks, list = 0, 0, 0, 0, 0, 0
  local rolled, closed = false, ''
  if account_value then
    local _, sd
    local sw = 0
    if byte(account_value) == 6 then
      _, sd, sw, de, we, me, ye, _, marks, list, da, dc, wa, wc, ma, mc, ya, yc, changes, dr, wr, mr, yr, pending,
        paced_until, suspended_at = decode('<BI4I4BBBBBdI2dddddddddddddddd', account_value)
    else
      _, sd, de, me, ye, _, marks, list, da, dc, ma, mc, ya, yc, changes, dr, mr, yr, pending, paced_until, suspended_at =
        decode('<BI4BBBBI4I2ddddddddddddd', account_value)
    end
    local sm, sy = month_and_year(sd)
    rolled = day > sd or week > sw
    if rolled then
      if day > sd and sd > 0 then closed = encode('<BI4Bddd', 0, sd, de, da, dc, dr) end
      if week > sw and sw > 0 then closed = closed .. encode('<BI4Bddd', 3, sw, we, wa, wc, wr) end
      if month > sm and sm > 0 then closed = closed .. encode('<BI4Bddd', 1, sm, me, ma, mc, mr) end
      if year > sy and sy > 0 then closed = closed .. encode('<BI4Bddd', 2, sy, ye, ya, yc, yr) end
    end
    if day > sd then de, da, dc, dr = 0, 0, 0, 0 else day = sd end
    if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end
    if month > sm then me, ma, mc, mr = 0, 0, 0, 0 else month = sm end
    if year > sy then ye, ya, yc, yr = 0, 0, 0, 0 else year = sy end
    if rolled and marks > 0 then
      if day > sd then marks = without_level(without_level(marks, 0), 3) end
      if week > sw then marks = without_level(without_level(marks, 7), 8) end
      if month > sm then marks = without_level(without_level(marks, 1), 4) end
      if year > sy then marks = without_level(without_level(marks, 2), 5) end
      if marks == 0 then list = 0 end
    end
  end
  local merchant_suspended = merchant_value and byte(merchant_value, 2) == 1
  local suspended = suspended_at > 0 or merchant_suspended
  local da0, dc0, dr0, wa0, wc0, wr0 = da, dc, dr, wa, wc, wr
  local ma0, mc0, mr0, ya0, yc0, yr0, pending0 = ma, mc, mr, ya, yc, yr, pending
  local known, state, pinned, given_back = false, 0, false, false
  local o_currency, o_day, o_week, o_month, o_year, o_de, o_we, o_me, o_ye = currency, 0, 0, 0, 0, 0, 0, 0, 0
  local o_amount, o_decision, until_at, settles, settled, refunded = 0, decision_id, 0, 0, 0, 0
  local live, voided, operations = '', '', ''
  local unknown, made, doubted = false, false, false
  local any_time = false
  repeat
    if order_value then
      local _, d, w, e1, ew, e2, e3, s, f, c3, a, expires, id, live_n, voided_n, operations_n, from
      local is_previous = byte(order_value) == 4
      if is_previous then
        w, ew = 0, 0
        _, d, e1, e2, e3, s, f, c3, a, expires, id, live_n, voided_n, operations_n, from =
          decode('<BI4BBBBBc3dI4c16BBB', order_value)
      else
        _, d, w, e1, ew, e2, e3, s, f, c3, a, expires, id, live_n, voided_n, operations_n, from =
          decode('<BI4I4BBBBBBc3dI4c16BBB', order_value)
      end
      if any_time or expires > now then
        known, state, pinned, given_back = true, s, f % 2 == 1, f % 8 >= 4
        unknown, made, doubted = f % 16 >= 8, f % 32 >= 16, f >= 32
        o_currency, o_day, o_week, o_de, o_we, o_me, o_ye, o_amount, o_decision = c3, d, w, e1, ew, e2, e3, a, id
        o_month, o_year = month_and_year(d)
        live = sub(order_value, from, from + 16 * live_n - 1)
        from = from + 16 * live_n
        if not any_time or voided == '' then
          voided = sub(order_value, from, from + 16 * voided_n - 1)
        end
        from = from + 16 * voided_n
        if f % 4 >= 2 then
          until_at, settles, settled, refunded, from = decode('<I4Bdd', order_value, from)
          operations = sub(order_value, from)
          if is_previous then operations = upgraded(operations) end
        end
      end
    end
    local ask_journal = (not known or (state == 0 and o_amount == 0)) and not any_time and history ~= ''
    order_value, any_time = history, true
  until not ask_journal
  local was_unknown = unknown or doubted
  local code, answer_id, wait_ms, first_amount = nil, decision_id, 0, nil
  local replay, journal, account_changed, order_changed = false, true, false, false
  if op == 1 or op == 2 then
    local charged = state == 1 or state == 2 or state == 3
    local same = charged and o_amount == amount and o_currency == currency and (state ~= 1) == (op == 2)
    local barred
    if voided ~= '' and position(voided, attempt) then
      barred = 51
    elseif given_back or state == 4 then
      barred = 53
    elseif charged and suspended then
      barred = 25
    end
    if same and not barred and position(live, attempt) then
      code, replay, answer_id, journal = 0, true, o_decision, false
    elseif waiting[stream] >= backlog_max then
      code, journal = 61, false
    elseif barred then
      code = barred
    elseif same and replays_max < 255 and (pinned or max(#live / 16, 1) > replays_max) then
      code = 58
    elseif same then
      code, replay, answer_id, order_changed = 0, true, o_decision, true
      if #live < 512 then live = live .. attempt else pinned = true end
    elseif charged then
      code = 50
    elseif refusal == 20 then
      code = refusal
    elseif suspended then
      code = 25
    elseif refusal ~= 0 then
      code = refusal
    else
      local pending_max, lifetime_secs, on_expiry
      if op == 2 then
        pending_max, lifetime_secs, on_expiry, at = decode('<dI4B', packed, at)
      end
      local broken = breaks(amount, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max,
        ya_max)
      local interval, tolerance, delay_max
      if broken and paced then
        interval, tolerance, delay_max, at = decode('<ddd', packed, at)
        code = breaks(amount, dc, wc, mc, yc, da, wa, ma, ya, decode('<dddddddd', packed, at))
      else
        code = broken
      end
      if not code and op == 2 and pending > pending_max - amount then
        code = 36
      end
      if not code and broken then
        local now_us = now_ms * 1000
        local turn = max(paced_until, now_us)
        local wait = max(turn - now_us - tolerance, 0) + 999
        wait_ms = (wait - wait % 1000) / 1000
        if wait_ms > delay_max then code = 37 else paced_until = turn + interval end
      end
      if not code then
        code, account_changed, order_changed = 0, true, true
        da, dc, wa, wc = da + amount, dc + 1, wa + amount, wc + 1
        ma, mc, ya, yc = ma + amount, mc + 1, ya + amount, yc + 1
        known, state, pinned, given_back, live, operations = true, 1, false, false, attempt, ''
        unknown, made, doubted = false, false, false
        o_currency, o_amount, o_decision, until_at, settles, settled, refunded = currency, amount, decision_id, 0, 0, 0, 0
        o_day, o_week, o_month, o_year, o_de, o_we, o_me, o_ye = day, week, month, year, de, we, me, ye
        if op == 2 then
          state, until_at, settles, pending = 2, min(now + lifetime_secs, 4294967295), on_expiry, pending + amount
        end
      end
    end
  else
    local function give_back(less, charge)
      if o_day == day and o_de == de then da, dc = max(da - less, 0), max(dc - charge, 0) end
      if o_week == week and o_we == we then wa, wc = max(wa - less, 0), max(wc - charge, 0) end
      if o_month == month and o_me == me then ma, mc = max(ma - less, 0), max(mc - charge, 0) end
      if o_year == year and o_ye == ye then ya, yc = max(ya - less, 0), max(yc - charge, 0) end
    end
    local function open_again()
      code, account_changed, order_changed, amount = 1, true, true, o_amount
      give_back(o_amount, 1)
      pending = max(pending - (state == 2 and max(o_amount - settled, 0) or 0), 0)
      state, unknown = 0, false
    end
    local function add_operation(kind, id)
      operations = operations .. encode('<Bc16c16dI4I4BBBBc16', kind, id, attempt, amount, day, week, de, we, me, ye, decision_id)
    end
    local charged = state == 1 or state == 2 or state == 3
    local held = state == 2 and max(o_amount - settled, 0) or 0
    local function repeated(place)
      local _, _, _, taken, _, _, _, _, _, _, first = decode('<Bc16c16dI4I4BBBBc16', operations, place)
      if asked < 0 or asked == taken then
        code, replay, answer_id, journal, amount = 4, true, first, false, taken
      else
        code, first_amount = 50, taken
      end
    end
    local function end_hold()
      code, account_changed, order_changed, amount = 1, true, true, held
      give_back(held, settled == 0 and 1 or 0)
      pending = max(pending - held, 0)
      state = settled == 0 and 4 or 3
      live, given_back = '', true
    end
    local function released_before(place)
      local _, _, _, taken, _, _, _, _, _, _, first = decode('<Bc16c16dI4I4BBBBc16', operations, place)
      code, replay, answer_id, journal, amount = 1, true, first, false, taken
    end
    local end_id = attempt
    if op == 7 then
      end_id = sub(packed, at, at + 15)
      local place = operation(operations, { [4] = true }, 1, end_id)
      if place and o_currency == currency then
        released_before(place)
      end
      local holds = state == 2 or state == 4
      op = holds and o_currency == currency and 4 or 6
    end
    if code then
    elseif op == 3 then
      local reservation = operation(operations, { [2] = true }, 2, attempt)
      local live_at = position(live, attempt)
      if not known then
        code, order_changed, voided = 3, true, attempt
      elseif position(voided, attempt) then
        code, replay, journal = charged and 2 or 1, true, false
      elseif charged and o_currency ~= currency and (live_at or reservation) then
        code = 50
      else
        order_changed = true
        if live_at then
          live = sub(live, 1, live_at - 1) .. sub(live, live_at + 16)
        end
        voided = voided .. attempt
        if #voided > 512 then
          voided = sub(voided, 17)
        end
        if reservation then
          local _, _, _, taken, d, w, e1, ew, e2, e3 = decode('<Bc16c16dI4I4BBBBc16', operations, reservation)
          local m, y = month_and_year(d)
          operations = sub(operations, 1, reservation - 1) .. sub(operations, reservation + 69)
          code, account_changed, amount, refunded = 4, true, taken, max(refunded - taken, 0)
          if d == day and e1 == de then dr = max(dr - taken, 0) end
          if w == week and ew == we then wr = max(wr - taken, 0) end
          if m == month and e2 == me then mr = max(mr - taken, 0) end
          if y == year and e3 == ye then yr = max(yr - taken, 0) end
        elseif not live_at then
          code = 3
        elseif live ~= '' or pinned or state == 3 or not charged or operations ~= '' then
          code = 2
        else
          open_again()
        end
      end
    elseif op == 6 and voided ~= '' and position(voided, attempt) then
      code = 51
    elseif (op <= 8 or op == 19) and state == 0 then
      code, journal = 52, op ~= 8
    elseif (op <= 8 or op == 19) and o_currency ~= currency then
      code, journal = 50, op ~= 8
    elseif op == 4 then
      local place = operation(operations, { [4] = true })
      if state == 2 then
        end_hold()
        unknown, made = false, true
        add_operation(4, end_id)
      elseif place then
        released_before(place)
      elseif state == 4 then
        code, replay, journal = 1, true, false
      else
        code = 53
      end
    elseif op == 8 then
      if state ~= 2 then
        code, journal = 53, false
      elseif until_at > now then
        code, replay, journal = 0, true, false
      elseif settles == 0 then
        end_hold()
      else
        code, account_changed, order_changed, amount = 4, true, true, held
        pending = max(pending - held, 0)
        settled, state = o_amount, 3
      end
    elseif op == 19 then
      local extended = decode('<I4', packed, at)
      if state ~= 2 then
        code = 53
      elseif extended <= until_at then
        code, replay, journal, amount = 4, true, false, held
      else
        code, order_changed, amount, until_at = 4, true, held, extended
      end
    elseif op == 5 then
      local id, percent = decode('<c16B', packed, at)
      local place = operation(operations, { [1] = true }, 1, id)
      if place then
        repeated(place)
      elseif state ~= 2 and (percent < 255 or asked < 0 or state == 1) then
        code = 53
      else
        if asked < 0 then amount = held end
        local more = max(amount - held, 0)
        local rest = o_amount % 100
        local allowed = (o_amount - rest) / 100 * percent + (rest * percent - rest * percent % 100) / 100
        if amount == 0 then
          code = 11
        elseif #operations >= (percent < 255 and 2208 or 4416)
          and not (marked and state == 2) then
          code = 55
        elseif (more > allowed and percent < 255) or da > 9007199254740991 - more or wa > 9007199254740991 - more
          or ma > 9007199254740991 - more or ya > 9007199254740991 - more or settled > 9007199254740991 - amount then
          code = 54
        else
          code, account_changed, order_changed = 4, true, true
          local left = max(held - amount, 0)
          local closes = marked or left == 0
          local returned = closes and left or 0
          add_operation(1, id)
          unknown, made = false, true
          settled = settled + amount
          if closes then state = 3 end
          pending = max(pending - min(held, amount) - returned, 0)
          give_back(returned, 0)
          da, wa, ma, ya = da + more, wa + more, ma + more, ya + more
        end
      end
    elseif op == 6 then
      local id, daily_max, monthly_max = decode('<c16dd', packed, at)
      local place = operation(operations, { [2] = true, [3] = true }, 1, id)
      if state == 4 then
        code = 53
      elseif place then
        local kind, _, owner, taken, d, w, e1, ew, e2, e3, first = decode('<Bc16c16dI4I4BBBBc16', operations, place)
        if kind == 3 or (asked >= 0 and asked ~= taken) or (marked and owner == attempt) then
          repeated(place)
        else
          local next_kind = marked and 2 or 3
          operations = sub(operations, 1, place - 1)
            .. encode('<Bc16c16dI4I4BBBBc16', next_kind, id, attempt, taken, d, w, e1, ew, e2, e3, first)
            .. sub(operations, place + 69)
          code, order_changed, amount = 4, true, taken
          if marked then
            replay, answer_id = true, first
          else
            account_changed, given_back, unknown, made = true, true, false, true
            give_back(taken, 0)
          end
        end
      else
        local left = max((state == 1 and o_amount or settled) - refunded, 0)
        if asked < 0 then amount = left end
        if amount > left or left == 0 then
          code = 40
        elseif amount == 0 then
          code = 11
        elseif #operations >= 2208 then
          code = 55
        elseif dr > daily_max - amount then
          code = 41
        elseif mr > monthly_max - amount or wr > 9007199254740991 - amount or yr > 9007199254740991 - amount then
          code = 42
        else
          code, account_changed, order_changed = 4, true, true
          refunded = refunded + amount
          add_operation(marked and 2 or 3, id)
          dr, wr, mr, yr = dr + amount, wr + amount, mr + amount, yr + amount
          if not marked then
            given_back = true
            give_back(amount, 0)
            unknown, made = false, true
          end
        end
      end
    elseif op == 15 or op == 16 then
      local what, id = decode('<Bc16', packed, at)
      local of_charge = op == 15 and what == 0
      if op == 16 and what == 0 and known and state == 0 then
        code, replay, journal = 1, true, false
      elseif state == 0 then
        code, journal = 52, op == 16 and what == 0
      elseif o_currency ~= currency then
        code, journal = 50, op == 16 and what == 0
      elseif op == 16 and what == 1 then
        code, order_changed = 4, not made
        replay, journal = not (unknown and order_changed), unknown and order_changed
        if order_changed then unknown, made = false, true end
      elseif op == 16 then
        if made or operations ~= '' or not charged or state == 3 then
          code = 53
        else
          voided, live, pinned = sub(voided .. live, -512), '', false
          open_again()
        end
      else
        if of_charge then amount = o_amount end
        local done = position(voided, attempt) or (of_charge and (made or unknown))
          or (what == 1 and operation(operations, { [1] = true }, 1, id))
          or (what == 3 and operation(operations, { [3] = true }, 1, id))
          or (what == 4 and (state == 4 or operation(operations, { [4] = true })))
        code = 4
        if done then
          replay, journal = true, false
        else
          order_changed = true
          if of_charge then unknown = true else doubted = true end
        end
      end
    elseif op == 9 then
      local counter, change, expected = decode('<BBd', packed, at)
      local figures = { [0] = da, ma, ya, dc, mc, yc, dr, mr, yr, pending, wa, wc, wr }
      local value = change == 1 and figures[counter] + amount or change == 2 and figures[counter] - amount or amount
      if expected >= 0 and expected ~= changes then
        code = 56
      elseif value < 0 or value > 9007199254740991 then
        code = 11
      else
        code, account_changed, figures[counter] = 4, true, value
        da, ma, ya, dc, mc, yc, dr, mr, yr, pending, wa, wc, wr = figures[0], unpack(figures)
      end
    elseif op == 10 then
      local windows, until_ms, expected = decode('<Bdd', packed, at)
      if expected >= 0 and expected ~= changes then
        code = 56
      else
        code, account_changed = 4, true
        if day > own_day and store_ms < until_ms then
          local own_month, own_year = month_and_year(own_day)
          local epoch = 128 + changes % 100
          day, de = own_day, epoch
          if week > own_week then week, we = own_week, epoch end
          if month > own_month then month, me = own_month, epoch end
          if year > own_year then year, ye = own_year, epoch end
          paced_until = min(paced_until, now_ms * 1000)
        end
        if windows % 2 == 1 then de, da, dc, dr = (de + 1) % 256, 0, 0, 0 end
        if windows % 4 >= 2 then me, ma, mc, mr = (me + 1) % 256, 0, 0, 0 end
        if windows % 8 >= 4 then ye, ya, yc, yr = (ye + 1) % 256, 0, 0, 0 end
        if windows >= 8 then we, wa, wc, wr = (we + 1) % 256, 0, 0, 0 end
      end
    elseif op == 11 or op == 12 then
      code = 4
      if (suspended_at > 0) == (op == 11) then
        replay, journal = true, false
      else
        account_changed, suspended_at = true, op == 11 and max(now_ms, 1) or 0
      end
    elseif op == 13 then
      code, account_changed, replay, journal = 4, not account_value, account_value and true, not account_value
    else
      local marked, of_list = marks, list
      if watch then marked, of_list = marked_by(watch, dc, mc, yc, da, ma, ya, pending, wc, wa) end
      local changed = account_value and (rolled or marked ~= marks or of_list ~= list) or false
      code, account_changed, replay, journal = 4, changed, not changed, changed
    end
  end
  if journal and (code > 4 or code == 3) and waiting[stream] >= backlog_max then
    journal = false
    if code > 4 then code = 61 end
  end
  if account_changed and not dry then
    changes = changes + 1
  end
  if old then wa, wc, wr = 0, 0, 0 end
  local crossed
  if account_changed and watch then
    local marked, of_list = marked_by(watch, dc, mc, yc, da, ma, ya, pending, wc, wa)
    if marked ~= marks or of_list ~= list then
      if old then
        crossed = encode('<I4I2I4I2', marks, list, marked, of_list) .. sub(watch, 1, 58) .. sub(watch, 75)
      else
        crossed = encode('<dI2dI2', marks, list, marked, of_list) .. watch
      end
      marks, list = marked, of_list
    end
  end
  if dry then crossed = nil end
  local refused = code > 4
  if dry then
    journal = noted and journal and refused
  end
  local account = account_value
  if account_changed or rolled or not account_value or (not old and byte(account_value) ~= 6) then
    local account_flags = (suspended_at > 0 and 1 or 0) + (pending > 0 and 2 or 0)
    if old then
      account = encode('<BI4BBBBI4I2ddddddddddddd', 4, day, de, me, ye, account_flags, marks, list, da, dc, ma, mc, ya, yc,
        changes, dr, mr, yr, pending, paced_until, suspended_at)
    else
      account = encode('<BI4I4BBBBBdI2dddddddddddddddd', 6, day, week, de, we, me, ye, account_flags, marks, list, da, dc, wa, wc, ma, mc, ya, yc,
        changes, dr, wr, mr, yr, pending, paced_until, suspended_at)
    end
  end
  local before = ''
  if account_changed and old then
    before = encode('<dddddddddd', da0, dc0, dr0, ma0, mc0, mr0, ya0, yc0, yr0, pending0)
  elseif account_changed then
    before = encode('<ddddddddddddd', da0, dc0, dr0, wa0, wc0, wr0, ma0, mc0, mr0, ya0, yc0, yr0, pending0)
  end
  local another = answer_id ~= decision_id
  local record_flags = (replay and 1 or 0) + (account_changed and 2 or 0) + (another and 4 or 0)
    + (merchant_suspended and 8 or 0) + (code == 50 and 16 or 0) + (was_unknown and 32 or 0)
  local first = code == 50 and encode('<dc3', first_amount or o_amount, o_currency) or ''
  local record = encode('<BBBBI4ddddd', old and 5 or 7, code, record_flags, state, until_at, amount,
    wait_ms, o_amount, settled, refunded) .. account .. before .. (another and answer_id or '') .. first
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
    local expires = min((state == 2 and max(now, until_at) or now) + ttl, 4294967295)
    local has_tail = until_at > 0 or settled > 0 or refunded > 0 or operations ~= ''
    local order_flags = (pinned and 1 or 0) + (has_tail and 2 or 0) + (given_back and 4 or 0) + (unknown and 8 or 0)
      + (made and 16 or 0) + (doubted and 32 or 0)
    local fixed
    local count, stored_order = #operations / 69, values[order_at]
    if old and not (stored_order and byte(stored_order) == 6) then
      fixed = encode('<BI4BBBBBc3dI4c16BBB', 4, o_day, o_de, o_me, o_ye, state, order_flags, o_currency, o_amount,
        expires, o_decision, #live / 16, #voided / 16, count)
      operations = downgraded(operations)
    else
      fixed = encode('<BI4I4BBBBBBc3dI4c16BBB', 6, o_day, o_week, o_de, o_we, o_me, o_ye, state, order_flags, o_currency, o_amount, expires,
        o_decision, #live / 16, #voided / 16, count)
    end
    local tail = has_tail and encode('<I4Bdd', until_at, settles, settled, refunded) .. operations or ''
    values[order_at] = fixed .. live .. voided .. tail
    local secs = expires > now and expires - now or ttl
    lifetimes[order_at] = secs ~= plain_secs and string.format('%.0f', secs) or nil
  end
  if not dry and ((order_changed and until_at > 0) or (op == 8 and not order_changed and code ~= 0)) then
    local merchant, order_no = string.match(KEYS[order_at], '^[^}]*}:o:([^:]*):(.*)$')
    local member = merchant .. ':' .. (order_changed and o_currency or currency) .. ':' .. order_no
    expiring[member], expiry_of[member] = order_changed and state == 2 and until_at or false, expiries + stream
  end
  return refused
end
for number = 1, commands do
  local packed = replies[2 * number - 1]
  local op, account_at, order_at, merchant_at, stream, watch_at, backlog_max, asked, dc_max, wc_max, mc_max, yc_max, da_max,
    wa_max, ma_max, ya_max, asked_ms, head, plain_order = decode('<BI2I2I2I2I2I4ddddddddddc24c65', packed)
  local account_value, order_value = values[account_at], values[order_at]
  stream_of[number] = stream
  local plain = op == 0 and account_value and not order_value and #account_value == 152
    and waiting[stream] < backlog_max and asked_ms <= store_ms and asked_ms >= store_ms - 60000
    and is_quiet(values[merchant_at])
  if plain then
    local own_head, da, dc, wa, wc, ma, mc, ya, yc, changes, rest = decode('<c24dddddddddc56', account_value)
    plain = own_head == head and not breaks(asked, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max,
      wa_max, ma_max, ya_max)
    if plain then
      account_value = encode('<c24dddddddddc56', head, da + asked, dc + 1, wa + asked, wc + 1, ma + asked, mc + 1, ya + asked, yc + 1,
        changes + 1, rest)
      values[account_at], values[order_at], replies[2 * number - 1] = account_value, plain_order, account_value
      waiting[stream] = waiting[stream] + 1
    end
  end
  local early = not plain and decode('<d', packed, 184 + 1) > store_ms
  local failed = not plain and not early and failure(stream, account_at, order_at, merchant_at)
  if early and all_or_none then
    values, expiring = { unpack(stored) }, {}
    for other = 1, commands do
      replies[2 * other - 1], replies[2 * other] = '\2' .. encode('<d', store_ms), ''
    end
    break
  elseif early then
    replies[2 * number - 1], replies[2 * number] = '\2' .. encode('<d', store_ms), ''
  elseif failed and all_or_none then
    return redis.error_reply(failed)
  elseif failed then
    replies[2 * number - 1], replies[2 * number] = '\0' .. failed, ''
  elseif op == 17 or op == 18 then
    decide_merchant(number, packed, op == 17, merchant_at, stream, asked_ms)
  elseif not plain and decide(number, packed, op, account_at, order_at, merchant_at, stream, watch_at, backlog_max, asked,
    dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max, asked_ms, head, plain_order) and all_or_none then
    local record, event = replies[2 * number - 1], replies[2 * number]
    values, expiring = { unpack(stored) }, {}
    for other = 1, commands do
      replies[2 * other - 1], replies[2 * other] = '\1', ''
    end
    replies[2 * number - 1], replies[2 * number] = record, event
    break
  end
end
for member, ends_at in pairs(expiring) do
  local key = expiry_of[member]
  local done = ends_at and pcall('ZADD', KEYS[key], ends_at, member)
  if type(done) == 'table' then broken[key - expiries] = done.err end
end
for number = 1, commands do
  local record, context, closed, crossed = replies[2 * number - 1], replies[2 * number], closing[number], crossing[number]
  local stream = stream_of[number]
  if context ~= '' and not broken[stream] then
    local id
    if closed or crossed then
      id = pcall('XADD', KEYS[places + stream], '0-*', 'c', context, 'd', record, 'w', closed or '', 'a', crossed or '')
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
      local _, account_at, order_at, merchant_at = decode('<BI2I2I2I2I2I4ddddddddddc24c65', ARGV[2 * number + 1])
      values[account_at], values[order_at] = stored[account_at], stored[order_at]
      values[merchant_at] = stored[merchant_at]
      replies[2 * number - 1], replies[2 * number] = '\0' .. why, ''
    end
  end
end
local changed, size = { unpack(KEYS) }, 0
for place = orders + 1, places do
  if values[place] ~= stored[place] then
    changed[size + 1], changed[size + 2], size = KEYS[place], values[place], size + 2
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
  if not ends_at and not broken[key - expiries] then
    pcall('ZREM', KEYS[key], member)
  end
end
return table.concat(replies, '\n')
