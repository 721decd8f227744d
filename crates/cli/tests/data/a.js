function one() {
  console.log("a"); console.log("b");
  console.log(
    "multi",

    "line",
  );
}

// far away



const x = 1;
const ü = "é"; console.log("last", console.log("inner"))
console.log("next line")
