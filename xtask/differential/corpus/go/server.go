package main

import (
	"errors"
	"fmt"
	"log"
	"sync"
)

var ErrClosed = errors.New("closed")

type Store struct {
	mu    sync.Mutex
	items map[string]int
}

func NewStore() *Store {
	return &Store{items: make(map[string]int)}
}

func (s *Store) Get(key string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.items[key]
	if !ok {
		return 0, fmt.Errorf("no key %q: %w", key, ErrClosed)
	}
	return value, nil
}

func (s *Store) Set(key string, value int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[key] = value
}

func main() {
	store := NewStore()
	store.Set("a", 1)
	for i := 0; i < 3; i++ {
		go func(n int) {
			store.Set(fmt.Sprintf("k%d", n), n)
		}(i)
	}
	if value, err := store.Get("a"); err != nil {
		log.Fatal(err)
	} else {
		fmt.Println(value)
	}
	switch value, err := store.Get("b"); {
	case err != nil:
		fmt.Println("missing", value)
	default:
		fmt.Println(value)
	}
}
