import { EventEmitter } from "events";
import type { Logger } from "./logger";

export interface User {
  readonly id: number;
  name: string;
  tags?: string[];
}

type Handler<T> = (value: T) => Promise<void> | void;

enum Level {
  Debug,
  Info = "info",
}

abstract class Base<T extends User> {
  protected users = new Map<number, T>();
  constructor(private readonly logger: Logger) {}
  abstract load(id: number): Promise<T>;

  async get(id: number): Promise<T | undefined> {
    try {
      const user = await this.load(id);
      this.users.set(user.id, user);
      console.log("loaded", user.name);
      return user;
    } catch (error: unknown) {
      console.error(error);
      return undefined;
    }
  }
}

export const isNamed = (u: User): u is User & { name: string } => u.name !== "" && u.name !== null;

function debounce<F extends (...args: any[]) => void>(f: F, ms: number) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  return (...args: Parameters<F>) => {
    if (timer) clearTimeout(timer);
    timer = setTimeout(() => f(...args), ms);
  };
}

const emitter = new EventEmitter();
emitter.on("user", (user) => console.log(user));
emitter.on("error", function (e) { console.log(e); console.log(e as any); });
const same = emitter && emitter.emit;
const first = same === same ? 1 : 2;
export default debounce;
