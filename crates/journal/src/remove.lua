-- Removes events that Postgres has from a stream, if they are the stream's: where Redis has lost them and given their numbers
-- to other events, those stay.
-- KEYS[1] the shard's stream
-- ARGV[1] the id after the last event to remove; then for each entry that must be in the stream as it was read: its id, how
--         many names and values of fields it has, and these in turn
-- Reply: 1, or 0 where another event, or none, has one of the ids
local at = 2
while at <= #ARGV do
  local id, count = ARGV[at], tonumber(ARGV[at + 1])
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not found or #found[2] ~= count then
    return 0
  end
  for i, field in ipairs(found[2]) do
    if field ~= ARGV[at + 1 + i] then
      return 0
    end
  end
  at = at + 2 + count
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
return 1
