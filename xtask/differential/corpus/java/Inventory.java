package shop;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Keeps what is in stock. */
public class Inventory {
  private static final int LIMIT = 100;
  private final List<String> items = new ArrayList<>();

  @Override
  public String toString() {
    return "Inventory" + items.toString();
  }

  public void add(String item) {
    if (item == null) {
      throw new IllegalArgumentException("item");
    }
    if (items.size() < LIMIT) {
      items.add(item);
      System.out.println("added " + item);
    }
  }

  public <T extends Comparable<T>> T max(T a, T b) {
    return a.compareTo(b) > 0 ? a : b;
  }

  public static void main(String[] args) {
    Inventory inventory = new Inventory();
    inventory.add("tea");
    inventory.add("cake");
    for (String item : inventory.items) {
      System.out.println(item);
    }
    try {
      inventory.add(null);
    } catch (IllegalArgumentException e) {
      System.err.println(e.getMessage());
    } finally {
      System.out.println("done");
    }
    Runnable r = () -> System.out.println(inventory);
    r.run();
  }
}
