let a = 1
console.log("no line break at the end")