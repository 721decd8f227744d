package tasks

import kotlin.math.max

data class Task(val id: Int, val title: String, var done: Boolean = false)

class Board(private val name: String) {
    private val tasks = mutableListOf<Task>()

    fun add(title: String): Task {
        val task = Task(tasks.size + 1, title)
        tasks.add(task)
        println("added $title to ${name}")
        return task
    }

    fun open(): List<Task> = tasks.filter { !it.done }

    fun longest(): Int {
        var best = 0
        for (task in tasks) {
            best = max(best, task.title.length)
        }
        return best
    }
}

fun main() {
    val board = Board("home")
    board.add("sweep")
    board.add("cook").done = true
    when (board.open().size) {
        0 -> println("all done")
        1 -> println("one left")
        else -> println("busy")
    }
    println(board.longest())
}
