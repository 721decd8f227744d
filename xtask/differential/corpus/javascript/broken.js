function broken( {
  console.log("after an error");
}
const x = ;
foo(1, 2
console.log("still found");
class { }
