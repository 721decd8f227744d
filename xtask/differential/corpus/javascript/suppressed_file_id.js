// ast-grep-ignore: no-console

console.log('whole file suppressed for one rule');
debugger;
