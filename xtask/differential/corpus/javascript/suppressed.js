// ast-grep-ignore
console.log('suppressed by any');
console.log('seen 1');
// ast-grep-ignore: no-console
console.log('suppressed by id');
// ast-grep-ignore: some-other-rule
console.log('seen 2: the id is another');
console.log('suppressed on its line'); // ast-grep-ignore
console.log('suppressed on its line by id'); // ast-grep-ignore: no-console, other
// ast-grep-ignore: no-console

console.log('seen 3: a line between');
