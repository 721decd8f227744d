console.log(1)
let y = 2
console.log(2)
