  -- The function `decide`, continued: rights.

  elseif op >= GRANT then
    local right = values[right_at]
    if op == GRANT then
      local wanted, wanted_count, above, share, lifetime, day_ends, r_bp, r_units = decode(GRANT_TERMS, packed, at)
      local until_ms = min(now_ms + lifetime, day_ends)
      if right then
        code, replay, journal = APPLIED, true, false
      elseif waiting[stream] < backlog_max then
        wanted = min(wanted, room(da_max, da, above, share), room(wa_max, wa, above, share), room(ma_max, ma, above, share),
          room(ya_max, ya, above, share))
        wanted_count = min(wanted_count, room(dc_max, dc, above, share), room(wc_max, wc, above, share),
          room(mc_max, mc, above, share), room(yc_max, yc, above, share))
        if previous or suspended or refusal ~= 0 or on_credit or wanted <= 0 or wanted_count <= 0 or until_ms <= now_ms then
          code, journal = RIGHT_REFUSED, false
        else
          code, account_changed, amount = APPLIED, true, wanted
          da, dc, wa, wc = da + wanted, dc + wanted_count, wa + wanted, wc + wanted_count
          ma, mc, ya, yc = ma + wanted, mc + wanted_count, ya + wanted, yc + wanted_count
          right = encode(RIGHT, RIGHT_FORMAT, day, week, de, we, me, ye, r_bp, r_units, wanted, wanted_count, wanted, wanted_count,
            until_ms, 0, decision_id)
        end
      else
        code, journal = BACKLOG_FULL, false
      end
    elseif not right or (op == ORPHAN_RIGHT and byte(right, RIGHT_ORPHANED_AT) > 0) then
      code, replay, journal = APPLIED, true, false
    elseif op == RELEASE_RIGHT and marked and decode('<d', right, RIGHT_UNTIL_AT) + REPORTED_WITHIN_MS > now_ms then
      code = RIGHT_IN_USE
    else
      local r_day, r_week, r_de, r_we, r_me, r_ye, _, _, left, left_count = decode(RIGHT_OF_REPORT, right)
      code, amount = APPLIED, left
      if op == ORPHAN_RIGHT then
        right = sub(right, 1, RIGHT_ORPHANED_AT - 1) .. '\1' .. sub(right, RIGHT_ORPHANED_AT + 1)
      else
        local r_month, r_year = month_and_year(r_day)
        account_changed, right = true, false
        if r_day == day and r_de == de then da, dc = max(da - left, 0), max(dc - left_count, 0) end
        if r_week == week and r_we == we then wa, wc = max(wa - left, 0), max(wc - left_count, 0) end
        if r_month == month and r_me == me then ma, mc = max(ma - left, 0), max(mc - left_count, 0) end
        if r_year == year and r_ye == ye then ya, yc = max(ya - left, 0), max(yc - left_count, 0) end
      end
    end
    if right ~= values[right_at] and not dry then
      values[right_at] = right
      if op ~= ORPHAN_RIGHT then
        local member = ':' .. string.match(KEYS[right_at], '^[^}]*}:r:(.*)$')
        expiring[member], expiry_of[member] = right and decode('<d', right, RIGHT_UNTIL_AT), expiries + streams + stream
      end
    end

