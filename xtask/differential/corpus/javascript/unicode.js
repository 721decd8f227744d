// Ünïcödé columns: each line has wide characters before the match.
const grüße = "héllo"; console.log(grüße);
const emoji = "👩‍👩‍👧‍👦🎉"; console.log("🎉", emoji);
/* 漢字 */ console.log("漢字かな", 'ß'); console.log("e\u0301");
const π = 3.14; add(π, π);
add("𝒳", "𝒳"); add("a", "𝒳");
