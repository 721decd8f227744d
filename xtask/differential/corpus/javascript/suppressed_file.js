// ast-grep-ignore

console.log('whole file suppressed');
console.log('whole file suppressed again');
