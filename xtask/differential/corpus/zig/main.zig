const std = @import("std");

const Point = struct {
    x: i32,
    y: i32,

    pub fn add(self: Point, other: Point) Point {
        return Point{ .x = self.x + other.x, .y = self.y + other.y };
    }
};

fn parse(text: []const u8) !i32 {
    if (text.len == 0) return error.Empty;
    return std.fmt.parseInt(i32, text, 10);
}

pub fn main() !void {
    const a = Point{ .x = 1, .y = 2 };
    const b = a.add(a);
    std.debug.print("{d}\n", .{b.x});
    var i: usize = 0;
    while (i < 3) : (i += 1) {
        std.debug.print("{d}\n", .{i});
    }
    const n = try parse("12");
    _ = n;
}
