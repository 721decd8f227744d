local Vector = {}
Vector.__index = Vector

function Vector.new(x, y)
  return setmetatable({ x = x or 0, y = y or 0 }, Vector)
end

function Vector:add(other)
  return Vector.new(self.x + other.x, self.y + other.y)
end

local function clamp(value, low, high)
  if value < low then
    return low
  elseif value > high then
    return high
  end
  return value
end

local a = Vector.new(1, 2)
local b = Vector.new(3, 4)
local sum = a:add(b)
print(sum.x, sum.y)
for i = 1, 3 do
  print(clamp(i, 1, 2))
end
for key, value in pairs(sum) do
  print(key, value)
end
