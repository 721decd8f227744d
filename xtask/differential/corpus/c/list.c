#include <stdio.h>
#include <stdlib.h>
#include "list.h"

#define MAX_NODES 64
#define SQUARE(x) ((x) * (x))

typedef struct node {
  int value;
  struct node *next;
} node_t;

static node_t *head = NULL;

/* Pushes a value; the caller owns nothing. */
int list_push(int value) {
  node_t *node = malloc(sizeof(node_t));
  if (node == NULL) {
    return -1;
  }
  node->value = value;
  node->next = head;
  head = node;
  return 0;
}

void list_free(void) {
  while (head != NULL) {
    node_t *next = head->next;
    free(head);
    head = next;
  }
}

int main(int argc, char **argv) {
  for (int i = 0; i < MAX_NODES; i++) {
    list_push(SQUARE(i));
  }
  if (argc > 1) {
    printf("%s: %d\n", argv[1], head->value);
  } else {
    printf("no arguments\n"); // plain
  }
  list_free();
  return argc == argc ? 0 : 1;
}
