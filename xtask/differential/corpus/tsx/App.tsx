import React, { useEffect, useState } from "react";

type Props = { title: string; items?: string[] };

export function App({ title, items = [] }: Props) {
  const [count, setCount] = useState<number>(0);
  const [name, setName] = useState("");

  useEffect(() => {
    document.title = `${title} (${count})`;
  }, [title, count]);

  return (
    <div className="app">
      <h1>{title}</h1>
      <button onClick={() => setCount(count + 1)} disabled={false}>
        clicked {count} times
      </button>
      <input value={name} onChange={(e) => setName(e.target.value)} />
      {items.length > 0 && <ul>{items.map((item) => <li key={item}>{item}</li>)}</ul>}
      {name ? <p>hello {name}</p> : null}
    </div>
  );
}
