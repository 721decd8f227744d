using System;
using System.Collections.Generic;
using System.Linq;

namespace Shop
{
    [Serializable]
    public class Order
    {
        public int Id { get; set; }
        public decimal Total { get; private set; }
        private readonly List<string> lines = new List<string>();

        public void Add(string line, decimal price)
        {
            if (line == null) throw new ArgumentNullException(nameof(line));
            lines.Add(line);
            Total += price;
            Console.WriteLine($"added {line} for {price}");
        }

        public IEnumerable<string> Expensive(Func<string, bool> predicate)
        {
            return lines.Where(l => predicate(l)).Select(l => l.ToUpper());
        }
    }

    public static class Program
    {
        public static async System.Threading.Tasks.Task Main(string[] args)
        {
            var order = new Order();
            order.Add("tea", 3.5m);
            order.Add("cake", 4m);
            await System.Threading.Tasks.Task.Delay(1);
            Console.WriteLine(order.Total);
        }
    }
}
