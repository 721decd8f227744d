'use strict';
const fs = require('fs');
const path = require("path");

var legacy = 1;
let counter = 0, other = 2;

function add(a, b) {
  return a + b;
}

const arrow = (x) => x * x;
const obj = { a: 1, b: arrow, 'c-d': add(1, 2), ...legacy };
const { a, b: renamed } = obj;

console.log('single');
console.log("double");
console.log(`template ${counter}`);
console.log(add(1, 2), add(1, 1), add(legacy, legacy));
console.log();
console.log(a, b, ...[1, 2, 3]);

if (counter == counter) {
  counter++;
} else if (counter === other) {
  counter--;
} else {
  debugger;
}

for (const key in obj) console.log(key);
for (let i = 0; i < 3; i++) {
  setTimeout(() => { console.log(i); }, 10);
}

class Animal extends Object {
  #secret = 1;
  static kind = 'animal';
  get secret() { return this.#secret; }
  async speak(...words) {
    await Promise.all(words.map(async (w) => console.log(w)));
  }
}

fs.readFile(path.join(__dirname, 'x'), 'utf8', function (err, data) {
  if (err) throw err;
  /* a comment */ console.log(/* inside */ data /* after */);
});
export { add, arrow as square };
a && a.b && a.b();
a ? a : b;
