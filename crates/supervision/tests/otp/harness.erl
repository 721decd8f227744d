%% Runs a script on OTP's own `supervisor` and prints what happened, in order.
%%
%% Why: the supervision crate promises OTP's behaviour exactly, and a promise about another program
%% is tested against that program. `cargo xtask otp` runs every file of `traces/` through this and
%% writes down the answer; a Rust test replays the same files on our supervisors. Nothing here
%% decides what is right: the trace is whatever the OTP that runs it does.
%%
%%
%% THE FILE: comments (`#`), the tree, `---`, the script, `---`, the trace (which is not read here).
%%
%% The tree, two spaces a level. Ids are unique over the whole tree.
%%
%%   sup ID STRATEGY intensity N period SECONDS [auto_shutdown any|all]
%%       [permanent|transient|temporary] [kill|within MS|wait] [significant]
%%   worker ID permanent|transient|temporary kill|within MS|wait [significant]
%%
%% STRATEGY is one_for_one, one_for_all or rest_for_one. A nested supervisor is permanent and
%% waited for unless it says otherwise. The stop rules are OTP's shutdown: `kill` is brutal_kill,
%% `wait` is infinity.
%%
%% The script, a command a line. After each command the harness settles: it sleeps 30 ms, then
%% waits until no process has anything to do. What a command causes without a timer has therefore
%% happened before the next one begins, whatever the machine does beside this.
%%
%%   start                    starts the root; by itself the first command where it is not written.
%%                            Only configuring commands may stand before it.
%%   exit ID REASON           the worker ends by itself: normal, shutdown, shutdown_with (OTP's
%%                            {shutdown, _}), crash; or `kill`, which somebody else does to it.
%%   exit_together ID REASON, ID REASON, ...
%%                            all are dead, in this order, before their supervisor sees the first.
%%   fail ID N                the next N inits of the worker return an error,
%%   raise ID N               ... or exit,
%%   ignore ID N              ... or return ignore. With several, they are used up in this order.
%%   hold ID                  the next init of the worker blocks, and its supervisor with it,
%%   release ID               ... until here; what the init then returns is decided here too.
%%   stubborn ID              this and later incarnations don't obey the stop signal.
%%   on_stop ID REASON        told to stop, it ends with normal, crash or shutdown_with instead.
%%   call SUP REQUEST         asks the supervisor and waits for the answer: `start_child worker ...`
%%                            as in the tree, terminate_child ID, restart_child ID, delete_child ID,
%%                            which_children, count_children.
%%   async LABEL SUP REQUEST  asks without waiting.
%%   wait MS
%%   stop                     the root's parent tells it to stop, and waits for its end.
%%   begin_stop               the same without waiting, so that the script can interfere.
%%
%% The trace, an event a line.
%%
%%   init ID                  an init of the worker began, whatever comes of it.
%%   stop ID                  the worker received the stop signal.
%%   report SUP progress ID | start_error ID | child_terminated ID REASON
%%          | shutdown_error ID REASON | shutdown ID reached_max_restart_intensity
%%                            the supervisor's own reports.
%%   answer [LABEL] RESULT    the supervisor answered. RESULT: ok, started, ignored (OTP's
%%                            {ok, undefined}), not_found, running, restarting, already_started,
%%                            already_present, start_failed, invalid (the spec was refused), gone
%%                            (it ended before it answered); ID:up, ID:down, ID:restarting for each
%%                            child, or none; specs N active N supervisors N workers N.
%%   root started             the start of the whole tree succeeded,
%%   root failed ID           ... or failed in this child of the root.
%%   root exit REASON
%%
%% REASON: normal, shutdown, shutdown_with, crash, killed, noproc; other for what a script can't
%% make on purpose.
%%
%%
%% ORDER. Every line is one message to one process, the one that runs the script, and its mailbox
%% is the trace. Lines about a supervisor (reports, answers) are sent by that supervisor itself, so
%% they stand in the order in which it did things; with one scheduler (`+S 1:1`) a message is in
%% the mailbox before its sender goes on, so that lines of different processes stand in the order
%% of cause and effect.

-module(harness).
-behaviour(supervisor).

-export([main/1]).
-export([init/1, start_supervisor/1, start_worker/1, init_worker/2, log/2]).

%% What the script set and who is alive: read by workers, which can't be told by message while they
%% are being started. {pid, Id} => a process; {fail | raise | ignore, Id} => how often still;
%% {hold | stubborn, Id} => true; {held, Id} => the process that blocks; {on_stop, Id} => a reason.
-define(STATE, harness_state).

-define(SETTLE_MS, 30).

%% Longer than any script waits: the harness itself is wrong, or the script is.
-define(STUCK_MS, 60000).

%% `erl ... -run harness main FILE`: prints the trace, or says on standard error what is wrong.
main([File]) ->
    try
        Lines = trace_of(File),
        io:put_chars([[Line, $\n] || Line <- Lines]),
        halt(0)
    catch
        throw:Problem ->
            io:put_chars(standard_error, [File, ": ", Problem, $\n]),
            halt(1);
        Class:Reason:Stack ->
            io:format(standard_error, "~ts: ~p~n", [File, {Class, Reason, Stack}]),
            halt(1)
    end.

trace_of(File) ->
    %% `-run` sets it, and then a crash of the root's parent would only make the trace shorter.
    process_flag(trap_exit, false),
    {Root, Script} = read(File),
    register(?MODULE, self()),
    ?STATE = ets:new(?STATE, [named_table, public]),
    install_log_handler(),
    Parent = spawn_link(fun() -> parent(Root) end),
    Starts = lists:member(["start"], Script),
    Commands = [["start"] || not Starts] ++ Script,
    Run = #{parent => Parent, lines => [], pending => #{}},
    Done = lists:foldl(fun(Command, At) -> settle(command(Command, At)) end, Run, Commands),
    check_the_end(Done),
    lists:reverse(maps:get(lines, Done)).

%% A script that leaves something open proves less than it seems to.
check_the_end(#{pending := Pending}) ->
    map_size(Pending) =:= 0 orelse throw("a call was never answered"),
    ets:match(?STATE, {{held, '$1'}, '_'}) =:= [] orelse throw("a held init was never released"),
    ets:match(?STATE, {{hold, '$1'}, '_'}) =:= [] orelse throw("a hold was never reached"),
    [] =:= [left || {{Kind, _}, N} <- ets:tab2list(?STATE), counted(Kind), N =/= 0]
        orelse throw("a fail, raise or ignore was never reached"),
    %% A handler that crashes is removed by the logger, silently, and the reports with it.
    {ok, _} = logger:get_handler_config(?MODULE),
    ok.

counted(Kind) -> lists:member(Kind, [fail, raise, ignore]).


%% READING

read(File) ->
    {ok, Bytes} = file:read_file(File),
    Lines = string:split(binary_to_list(Bytes), "\n", all),
    Kept = [Line || Line <- Lines, string:trim(Line) =/= "", hd(Line) =/= $#],
    {Tree, Rest} = section(Kept),
    {Script, _Trace} = section(Rest),
    case level(Tree, 0) of
        {[#{kind := sup} = Root], []} -> {Root, [string:lexemes(Line, " ") || Line <- Script]};
        _ -> throw("the tree is not one root with indented children")
    end.

section(Lines) ->
    case lists:splitwith(fun(Line) -> Line =/= "---" end, Lines) of
        {Before, ["---" | After]} -> {Before, After};
        {Before, []} -> {Before, []}
    end.

%% The nodes at this depth, and the lines that stand further out.
level([], _) ->
    {[], []};
level([Line | Rest] = Lines, Depth) ->
    Text = string:trim(Line, leading),
    case length(Line) - length(Text) of
        Indent when Indent =:= 2 * Depth ->
            {Children, Below} = level(Rest, Depth + 1),
            Node = node_of(string:lexemes(Text, " ")),
            {Siblings, Left} = level(Below, Depth),
            {[Node#{children => Children} | Siblings], Left};
        Indent when Indent < 2 * Depth ->
            {[], Lines};
        _ ->
            throw(["indented too far: ", Line])
    end.

node_of(["sup", Id, Strategy, "intensity", Intensity, "period", Period | Options]) ->
    options(Options, #{
        kind => sup,
        id => list_to_atom(Id),
        strategy => list_to_atom(Strategy),
        intensity => list_to_integer(Intensity),
        period => list_to_integer(Period),
        auto_shutdown => never,
        restart => permanent,
        shutdown => infinity,
        significant => false
    });
node_of(["worker", Id | Options]) ->
    Worker = #{kind => worker, id => list_to_atom(Id), significant => false},
    case options(Options, Worker) of
        #{restart := _, shutdown := _} = Node -> Node#{children => []};
        _ -> throw(["a worker has a restart type and a stop rule: ", Id])
    end;
node_of(Words) ->
    throw(["not a node: ", lists:join(" ", Words)]).

options([], Node) -> Node;
options(["auto_shutdown", Which | Rest], Node) ->
    Rule = #{"any" => any_significant, "all" => all_significant},
    options(Rest, Node#{auto_shutdown => maps:get(Which, Rule)});
options(["permanent" | Rest], Node) -> options(Rest, Node#{restart => permanent});
options(["transient" | Rest], Node) -> options(Rest, Node#{restart => transient});
options(["temporary" | Rest], Node) -> options(Rest, Node#{restart => temporary});
options(["kill" | Rest], Node) -> options(Rest, Node#{shutdown => brutal_kill});
options(["wait" | Rest], Node) -> options(Rest, Node#{shutdown => infinity});
options(["within", Ms | Rest], Node) -> options(Rest, Node#{shutdown => list_to_integer(Ms)});
options(["significant" | Rest], Node) -> options(Rest, Node#{significant => true});
options([Word | _], _) -> throw(["not an option: ", Word]).


%% THE SCRIPT

command(["start"], #{parent := Parent} = Run) ->
    Parent ! start,
    Run;
command(["exit", Id, Reason], Run) ->
    end_worker(alive(Id), Reason),
    Run;
command(["exit_together" | Words], Run) ->
    Pairs = [string:lexemes(Pair, " ") || Pair <- string:lexemes(lists:join(" ", Words), ",")],
    Ends = [{alive(Id), Reason} || [Id, Reason] <- Pairs],
    Supervisors = lists:usort([supervisor_of(Pid) || {Pid, _} <- Ends]),
    [true = erlang:suspend_process(Supervisor) || Supervisor <- Supervisors],
    %% One after the other, so that the supervisor finds their exits in the written order.
    [end_worker_and_wait(Pid, Reason) || {Pid, Reason} <- Ends],
    [true = erlang:resume_process(Supervisor) || Supervisor <- Supervisors],
    Run;
command([Kind, Id, N], Run) when Kind =:= "fail"; Kind =:= "raise"; Kind =:= "ignore" ->
    ets:insert(?STATE, {{list_to_atom(Kind), list_to_atom(Id)}, list_to_integer(N)}),
    Run;
command(["hold", Id], Run) ->
    ets:insert(?STATE, {{hold, list_to_atom(Id)}, true}),
    Run;
command(["release", Id], Run) ->
    case ets:take(?STATE, {held, list_to_atom(Id)}) of
        [{_, Pid}] -> Pid ! release;
        [] -> throw(["no init is held: ", Id])
    end,
    Run;
command(["stubborn", Id], Run) ->
    ets:insert(?STATE, {{stubborn, list_to_atom(Id)}, true}),
    Run;
command(["on_stop", Id, Reason], Run) ->
    ets:insert(?STATE, {{on_stop, list_to_atom(Id)}, reason(Reason)}),
    Run;
command(["call", Supervisor | Words], Run) ->
    {Call, Asked} = ask("", Supervisor, Words, Run),
    wait_for_answer(Call, Asked);
command(["async", Label, Supervisor | Words], Run) ->
    {_Call, Asked} = ask([Label, " "], Supervisor, Words, Run),
    Asked;
command(["wait", Ms], Run) ->
    timer:sleep(list_to_integer(Ms)),
    Run;
command(["stop"], #{parent := Parent} = Run) ->
    is_process_alive(Parent) orelse throw("the root has already ended"),
    Monitor = monitor(process, Parent),
    Parent ! stop,
    %% The parent ends after the root has.
    receive
        {'DOWN', Monitor, process, Parent, _} -> Run
    after ?STUCK_MS -> throw("the root does not stop")
    end;
command(["begin_stop"], #{parent := Parent} = Run) ->
    Parent ! stop,
    Run;
command(Words, _) ->
    throw(["not a command: ", lists:join(" ", Words)]).

%% The process that runs under this id now.
alive(Id) ->
    case ets:lookup(?STATE, {pid, list_to_atom(Id)}) of
        [{_, Pid}] ->
            is_process_alive(Pid) orelse throw(["does not run: ", Id]),
            Pid;
        [] ->
            throw(["never ran: ", Id])
    end.

supervisor_of(Worker) ->
    {dictionary, Dictionary} = process_info(Worker, dictionary),
    {supervisor, Supervisor} = lists:keyfind(supervisor, 1, Dictionary),
    Supervisor.

end_worker(Pid, "kill") -> exit(Pid, kill);
end_worker(Pid, Reason) -> Pid ! {end_with, reason(Reason)}.

end_worker_and_wait(Pid, Reason) ->
    Monitor = monitor(process, Pid),
    end_worker(Pid, Reason),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    after ?STUCK_MS -> throw("a worker does not end")
    end.

%% The request goes out as gen_server sends it, but the answer is addressed to this process, which
%% collects the trace: asked through a process of its own, the answer would stand where that
%% process was scheduled, not where the supervisor gave it.
ask(Label, Supervisor, Words, #{pending := Pending} = Run) ->
    case ets:lookup(?STATE, {pid, list_to_atom(Supervisor)}) of
        [{_, Pid}] ->
            Call = monitor(process, Pid),
            Pid ! {'$gen_call', {self(), {answer, Call}}, request(Words)},
            {Call, Run#{pending => Pending#{Call => Label}}};
        [] ->
            throw(["no supervisor: ", Supervisor])
    end.

request(["start_child" | Words]) -> {start_child, child_spec(node_of(Words))};
request(["terminate_child", Id]) -> {terminate_child, list_to_atom(Id)};
request(["restart_child", Id]) -> {restart_child, list_to_atom(Id)};
request(["delete_child", Id]) -> {delete_child, list_to_atom(Id)};
request(["which_children"]) -> which_children;
request(["count_children"]) -> count_children;
request(Words) -> throw(["not a request: ", lists:join(" ", Words)]).


%% COLLECTING

%% Sleeps, waits for silence, and takes what has come into the trace.
settle(Run) ->
    timer:sleep(?SETTLE_MS),
    wait_until_quiet(),
    collect_all(Run).

%% A process that waits for a timer or for a held init counts as quiet.
wait_until_quiet() ->
    Others = processes() -- [self()],
    case lists:all(fun is_quiet/1, Others) of
        true -> ok;
        false -> erlang:yield(), wait_until_quiet()
    end.

is_quiet(Pid) ->
    process_info(Pid, status) =:= {status, waiting}.

collect_all(Run) ->
    receive
        Message -> collect_all(collect(Message, Run))
    after 0 -> Run
    end.

wait_for_answer(Call, #{pending := Pending} = Run) when is_map_key(Call, Pending) ->
    receive
        Message -> wait_for_answer(Call, collect(Message, Run))
    after ?STUCK_MS -> throw("a call is not answered: ask with async while an init is held")
    end;
wait_for_answer(_, Run) ->
    Run.

collect({line, Line}, #{lines := Lines} = Run) ->
    Run#{lines => [Line | Lines]};
collect({{answer, Call}, Answer}, Run) ->
    demonitor(Call, [flush]),
    answered(Call, result(Answer), Run);
collect({'DOWN', Call, process, _, _}, Run) ->
    answered(Call, "gone", Run).

answered(Call, Result, #{lines := Lines, pending := Pending} = Run) ->
    {Label, Left} = maps:take(Call, Pending),
    Run#{lines => [["answer ", Label, Result] | Lines], pending => Left}.

%% Called where the thing happens.
line(Words) ->
    Texts = [if is_atom(Word) -> atom_to_list(Word); true -> Word end || Word <- Words],
    ?MODULE ! {line, lists:join(" ", Texts)}.

result(ok) -> "ok";
result({ok, undefined}) -> "ignored";
result({ok, Pid}) when is_pid(Pid) -> "started";
result({error, {already_started, _}}) -> "already_started";
result({error, Word}) when
    Word =:= not_found; Word =:= running; Word =:= restarting; Word =:= already_present
->
    atom_to_list(Word);
result({error, {bad_combination, _}}) -> "invalid";
%% What the inits of `fail` and `raise` give, what a supervisor makes of them, and what start_child
%% adds to either: the child.
result({error, Reason}) when Reason =:= boom; Reason =:= crash -> "start_failed";
result({error, {shutdown, {failed_to_start_child, _, _}}}) -> "start_failed";
result({error, {Reason, Child}}) when element(1, Child) =:= child -> result({error, Reason});
result([]) -> "none";
result([{specs, _} | _] = Counts) ->
    lists:join(" ", [[atom_to_list(What), " ", integer_to_list(N)] || {What, N} <- Counts]);
result([{_, _, _, _} | _] = Children) ->
    lists:join(" ", [[atom_to_list(Id), ":", state(Child)] || {Id, Child, _, _} <- Children]);
result(Answer) ->
    throw(io_lib:format("no name for the answer ~p", [Answer])).

state(restarting) -> "restarting";
state(undefined) -> "down";
state(Pid) when is_pid(Pid) -> "up".

%% Reasons as scripts write them and as traces show them.
reason("normal") -> normal;
reason("shutdown") -> shutdown;
reason("shutdown_with") -> {shutdown, on_purpose};
reason("crash") -> crash;
reason(Word) -> throw(["not a reason: ", Word]).

reason_name(Reason) when
    Reason =:= normal; Reason =:= shutdown; Reason =:= crash; Reason =:= killed; Reason =:= noproc
->
    atom_to_list(Reason);
reason_name({shutdown, _}) -> "shutdown_with";
reason_name(_) -> "other".


%% THE SUPERVISORS' REPORTS

%% The default handler would print them, and only drop them under load; ours runs in the process
%% that reports, and there is no queue. Progress is of level info, which is off by default.
install_log_handler() ->
    ok = logger:remove_handler(default),
    ok = logger:set_primary_config(level, info),
    ok = logger:add_handler(?MODULE, ?MODULE, #{level => all}).

log(#{msg := {report, #{label := {supervisor, Kind}, report := Report}}}, _Config) ->
    %% Kernel's own supervisors have no id here.
    case get(supervisor_id) of
        undefined -> ok;
        Id -> report(Kind, Id, Report)
    end;
log(_, _) ->
    ok.

report(progress, Id, Report) ->
    line([report, Id, progress, child_in(started, Report)]);
report(start_error, Id, Report) ->
    line([report, Id, start_error, child_in(offender, Report)]);
report(shutdown, Id, Report) ->
    line([report, Id, shutdown, child_in(offender, Report), proplists:get_value(reason, Report)]);
report(Kind, Id, Report) ->
    Reason = reason_name(proplists:get_value(reason, Report)),
    line([report, Id, Kind, child_in(offender, Report), Reason]).

child_in(Key, Report) ->
    proplists:get_value(id, proplists:get_value(Key, Report)).


%% THE TREE

%% Whoever starts the root is its parent, and only a parent's exit makes a supervisor stop. A
%% process of its own, because the start blocks while an init is held and the script must go on.
parent(Root) ->
    process_flag(trap_exit, true),
    receive
        start -> ok
    end,
    case start_supervisor(Root) of
        {ok, Pid} ->
            line([root, started]),
            parent_of(Pid);
        {error, {shutdown, {failed_to_start_child, Id, _}}} ->
            line([root, failed, Id])
    end.

parent_of(Root) ->
    receive
        stop ->
            exit(Root, shutdown),
            parent_of(Root);
        {'EXIT', Root, Reason} ->
            line([root, exit, reason_name(Reason)])
    end.

start_supervisor(Node) ->
    supervisor:start_link(?MODULE, Node).

%% The supervisor's callback, so it runs in the supervisor.
init(#{id := Id, children := Children} = Node) ->
    put(supervisor_id, Id),
    ets:insert(?STATE, {{pid, Id}, self()}),
    Flags = maps:with([strategy, intensity, period, auto_shutdown], Node),
    {ok, {Flags, lists:map(fun child_spec/1, Children)}}.

child_spec(#{kind := Kind} = Node) ->
    {Function, Type} =
        case Kind of
            sup -> {start_supervisor, supervisor};
            worker -> {start_worker, worker}
        end,
    Spec = maps:with([id, restart, shutdown, significant], Node),
    Spec#{start => {?MODULE, Function, [Node]}, type => Type}.

%% Runs in the supervisor, which proc_lib blocks until the worker's init has an outcome.
start_worker(Node) ->
    proc_lib:start_link(?MODULE, init_worker, [self(), Node]).

%% A process of our own instead of a gen_server, which can't disobey its parent's exit signal.
init_worker(Supervisor, #{id := Id, shutdown := Shutdown}) ->
    process_flag(trap_exit, Shutdown =/= brutal_kill),
    put(supervisor, Supervisor),
    ets:insert(?STATE, {{pid, Id}, self()}),
    line([init, Id]),
    wait_while_held(Id),
    case outcome(Id) of
        fail -> give_up(Supervisor, {error, boom});
        raise -> exit(crash);
        ignore -> give_up(Supervisor, ignore);
        ready -> proc_lib:init_ack(Supervisor, {ok, self()}), work(Supervisor, Id)
    end.

%% Without the link the supervisor is not bothered by the end of a worker that never was.
give_up(Supervisor, Outcome) ->
    unlink(Supervisor),
    proc_lib:init_ack(Supervisor, Outcome).

wait_while_held(Id) ->
    case ets:take(?STATE, {hold, Id}) of
        [] ->
            ok;
        [_] ->
            ets:insert(?STATE, {{held, Id}, self()}),
            receive
                release -> ok
            end
    end.

outcome(Id) ->
    case [Kind || Kind <- [fail, raise, ignore], left(Kind, Id) > 0] of
        [] ->
            ready;
        [Kind | _] ->
            ets:update_counter(?STATE, {Kind, Id}, -1),
            Kind
    end.

left(Kind, Id) ->
    case ets:lookup(?STATE, {Kind, Id}) of
        [{_, N}] -> N;
        [] -> 0
    end.

work(Supervisor, Id) ->
    receive
        {end_with, Reason} ->
            exit(Reason);
        {'EXIT', Supervisor, shutdown} ->
            line([stop, Id]),
            case ets:lookup(?STATE, {stubborn, Id}) of
                [] -> exit(reason_of_stop(Id));
                [_] -> work(Supervisor, Id)
            end;
        {'EXIT', Supervisor, Reason} ->
            %% Not told to stop: the supervisor itself was killed.
            exit(Reason)
    end.

reason_of_stop(Id) ->
    case ets:lookup(?STATE, {on_stop, Id}) of
        [{_, Reason}] -> Reason;
        [] -> shutdown
    end.
