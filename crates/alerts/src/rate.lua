-- Rate limit of notifications for one scope, merchant and type of alert: a sliding log of those that were sent.
--
-- KEYS[1]  sorted set; a member is "<notification> <channel>", its score the time in ms. A notification is one change of one
--          alert, and counts once however many channels carry it.
-- ARGV     now_ms, period_ms, notifications_max, notification, channel
-- reply    0: it may be sent, and is counted; else the time in ms when the oldest counted one expires
local now, period, max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local notification, member = ARGV[4], ARGV[4] .. ' ' .. ARGV[5]

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - period))
local log = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local seen, count, oldest = {}, 0, nil
for i = 1, #log, 2 do
  local one = string.match(log[i], '^%S+')
  if not seen[one] then
    seen[one] = true
    count = count + 1
    oldest = oldest or tonumber(log[i + 1])
  end
end
if not seen[notification] and count >= max then
  return (oldest or now) + period
end
redis.call('ZADD', KEYS[1], 'NX', string.format('%.0f', now), member)
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', period))
return 0
