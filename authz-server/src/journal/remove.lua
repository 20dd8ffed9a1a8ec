-- Removes events that Postgres has from a stream, if they are the stream's: where Redis has lost them and given their numbers
-- to other events, those stay.
-- KEYS[1] the shard's stream
-- ARGV[1] id of the last event to remove, ARGV[2] the id after it, and then that last event's fields, names and values in turn
-- Reply: 1, or 0 where another event, or none, has that id
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found or #found[2] ~= #ARGV - 2 then
  return 0
end
for i, field in ipairs(found[2]) do
  if field ~= ARGV[i + 2] then
    return 0
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
return 1
