-- Commands about a merchant as a whole.

-- Suspends a merchant as a whole, or takes its charges again; the record has no account.
local function decide_merchant(number, packed, suspends, merchant_at, stream, asked_ms)
  local now_ms = time_of(asked_ms)
  local dry = byte(packed, COMMAND_LEN + REST_FLAGS_AT) % (2 * COMMAND_DRY_FLAG) == COMMAND_DRY_FLAG
  local value = values[merchant_at]
  local suspended_at, changes, _ = 0, 0
  if value then _, _, suspended_at, changes = decode(MERCHANT, value) end
  local changed = (suspended_at > 0) ~= suspends
  if changed then suspended_at = suspends and max(now_ms, 1) or 0 end
  local suspended = suspended_at > 0
  if changed and not dry then
    changes = changes + 1
    values[merchant_at] = encode(MERCHANT, MERCHANT_FORMAT, suspended and MERCHANT_SUSPENDED_FLAG or 0, suspended_at, changes)
    waiting[stream] = waiting[stream] + 1
  else
    replies[2 * number] = ''
  end
  local head = encode(RECORD, previous and PREVIOUS_RECORD_FORMAT or RECORD_FORMAT, APPLIED,
    (changed and 0 or RECORD_REPLAY_FLAG) + (suspended and RECORD_MERCHANT_SUSPENDED_FLAG or 0), 0, 0, 0, 0, 0, 0, 0)
  local account_flags = suspended and ACCOUNT_SUSPENDED_FLAG or 0
  replies[2 * number - 1] = head .. packed_account(previous, '', 0, 0, 0, 0, 0, 0, account_flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    changes, 0, 0, 0, 0, 0, 0, suspended_at)
end

