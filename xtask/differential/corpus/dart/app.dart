import 'dart:async';

class Counter {
  int _value = 0;
  final String name;

  Counter(this.name);

  int get value => _value;

  void increment([int by = 1]) {
    if (by > 0) {
      _value += by;
    }
    print('$name is $_value');
  }
}

Future<void> main() async {
  final counter = Counter('clicks');
  counter.increment();
  counter.increment(2);
  await Future.delayed(Duration(milliseconds: 1));
  for (var i = 0; i < 2; i++) {
    print(i);
  }
  print(counter.value);
}
