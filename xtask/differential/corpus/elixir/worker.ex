defmodule Sample.Worker do
  @moduledoc "A worker."
  use GenServer
  alias Sample.{Registry, Store}

  @timeout 5_000

  def start_link(opts \\ []) do
    GenServer.start_link(__MODULE__, opts, name: __MODULE__)
  end

  def get(key), do: GenServer.call(__MODULE__, {:get, key}, @timeout)
  def put(key, value), do: GenServer.cast(__MODULE__, {:put, key, value})

  @impl true
  def init(opts), do: {:ok, %{opts: opts, items: %{}}}

  @impl true
  def handle_call({:get, key}, _from, state) do
    {:reply, Map.get(state.items, key), state}
  end

  @impl true
  def handle_cast({:put, key, value}, state) when is_atom(key) do
    items = state.items |> Map.put(key, value) |> Map.new()
    IO.inspect(items, label: "items")
    {:noreply, %{state | items: items}}
  end

  defp render(assigns) do
    ~H"""
    <p>{@name}</p>
    """
  end
end
