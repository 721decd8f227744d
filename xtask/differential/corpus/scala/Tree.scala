package trees

sealed trait Tree[+A]
case object Leaf extends Tree[Nothing]
case class Branch[A](value: A, left: Tree[A], right: Tree[A]) extends Tree[A]

object Tree {
  def depth[A](tree: Tree[A]): Int = tree match {
    case Leaf => 0
    case Branch(_, l, r) => 1 + math.max(depth(l), depth(r))
  }

  def insert(tree: Tree[Int], x: Int): Tree[Int] = tree match {
    case Leaf => Branch(x, Leaf, Leaf)
    case b @ Branch(v, l, r) =>
      if (x < v) b.copy(left = insert(l, x))
      else b.copy(right = insert(r, x))
  }

  def main(args: Array[String]): Unit = {
    val tree = List(3, 1, 2).foldLeft[Tree[Int]](Leaf)((t, x) => insert(t, x))
    println(depth(tree))
    println(s"depth is ${depth(tree)}")
    val name = "tree"
    println(name)
  }
}
