/* SPDX-License-Identifier: MIT */
/* The races of src/xen/evtchn_fifo.c, for Spin to try in every order: two vCPUs that send,
 * one that changes a priority, one that masks and unmasks (with MASKS), and a guest that
 * takes events.
 * A statement is one access to memory, or one locked instruction where it says atomic.
 *
 * What must hold: a ready bit stands for a list with something on it, and when all is quiet
 * no event is owed.  With one of the names defined that begin with BROKEN the algorithm lacks
 * one thing it needs, and that must show: evtchn_fifo_spin tries each. */

#define PORTS  2        /* numbered from 1 */
#define QUEUES 2        /* two priorities of one vCPU */

typedef event_word {
    bit pending;
    bit masked;
    bit linked;
    byte link
};

event_word word[PORTS + 1];
byte head[QUEUES];
bit ready[QUEUES];
bit upcall;

/* the hypervisor's own */
bit lock[QUEUES];
byte tail[QUEUES];
byte level[PORTS + 1];
byte last[PORTS + 1];

bit owed[PORTS + 1];    /* sent and not handled since */
byte nr_busy;           /* processes that may still send */

inline lock_take(q)
{
#ifdef BROKEN_NO_LOCK
    skip
#else
    atomic { !lock[q] -> lock[q] = 1 }
#endif
}

inline queues_unlock()
{
    atomic { lock[now] = 0; lock[was] = 0 }
}

inline queues_lock(p)
{
    do
    :: now = level[p];
       was = last[p];
       if
       :: now == was -> lock_take(now)
       :: now != was -> lock_take(0); lock_take(1)
       fi;
       if
#ifndef BROKEN_NO_RETRY
       :: last[p] != was -> queues_unlock()
       :: last[p] == was -> break
#else
       :: break
#endif
       fi
    od
}

inline event_link(p)
{
    d_step { tell = 0; appended = 0 };
    if
    :: stands
    :: !stands ->
       atomic { stands = word[p].linked; word[p].linked = 1 };
       if
       :: stands
       :: !stands ->
          d_step {        /* what the locks guard is nobody else's meanwhile */
#ifndef BROKEN_FORMER_TAIL
              if
              :: tail[was] == p -> tail[was] = 0
              :: else
              fi;
#endif
              last[p] = now;
              end = tail[now];
              tail[now] = p
          };
          if
          :: end == 0
          :: end != 0 ->
#ifdef BROKEN_TAIL_LOOK
             appended = word[end].linked;
             if
             :: appended -> word[end].link = p
             :: !appended
             fi
#else
             atomic { appended = word[end].linked; word[end].link = word[end].link | p };
             if
             :: appended
#ifdef BROKEN_LINK_STAYS
             :: !appended
#else
             :: !appended -> word[end].link = 0
#endif
             fi
#endif
          fi;
          if
          :: appended
          :: !appended ->
#ifdef BROKEN_READY_FIRST
             atomic { tell = !ready[now]; ready[now] = 1 };
             head[now] = p
#else
             head[now] = p;
             atomic { tell = !ready[now]; ready[now] = 1 }
#endif
          fi
       fi
    fi
}

#define LOCALS byte now, was, end; bit stands, appended, tell

inline event_send(p)
{
    queues_lock(p);
#ifdef BROKEN_LOOK_FIRST
    atomic { stands = word[p].masked || word[p].linked };
    word[p].pending = 1;
#else
    atomic { stands = word[p].masked || word[p].linked; word[p].pending = 1 };
#endif
    event_link(p);
    queues_unlock();
    if
    :: tell -> upcall = 1
    :: !tell
    fi
}

proctype sender(byte first, second, third)
{
    LOCALS;

    owed[first] = 1;
    event_send(first);
    if
    :: second != 0 -> owed[second] = 1; event_send(second)
    :: second == 0
    fi;
    if
    :: third != 0 -> owed[third] = 1; event_send(third)
    :: third == 0
    fi;
    nr_busy--
}

/* The guest unmasks by itself what is not pending, else asks for it. */
proctype masker(byte port)
{
    LOCALS;
    bit ask;

    word[port].masked = 1;
    atomic {
        ask = word[port].pending;
        word[port].masked = ask
    };
    if
    :: ask ->
       queues_lock(port);
       atomic { word[port].masked = 0; stands = !word[port].pending || word[port].linked };
       event_link(port);
       queues_unlock();
       if
       :: tell -> upcall = 1
       :: !tell
       fi
    :: !ask
    fi;
    nr_busy--
}

proctype mover(byte port)
{
    level[port] = 1;
    nr_busy--
}

proctype guest()
{
    byte next[QUEUES], port, link, q;
    bit mine[QUEUES], fired;

    do
    :: atomic { upcall -> upcall = 0 };
       do
       :: atomic {
              mine[0] = mine[0] | ready[0];
              mine[1] = mine[1] | ready[1];
              ready[0] = 0;
              ready[1] = 0
          };
          if
          :: mine[0] -> q = 0
          :: !mine[0] && mine[1] -> q = 1
          :: !mine[0] && !mine[1] -> break
          fi;
          port = next[q];
          if
          :: port == 0 -> port = head[q]
          :: port != 0
          fi;
          assert(port != 0 && port <= PORTS);
          atomic {
              link = word[port].link;
              word[port].linked = 0;
              word[port].link = 0
          };
          next[q] = link;
          mine[q] = (link != 0);
          atomic { fired = word[port].pending && !word[port].masked };
          if
          :: fired -> word[port].pending = 0; owed[port] = 0
          :: !fired
          fi
       od
    :: atomic { nr_busy == 0 && !upcall -> assert(!owed[1] && !owed[2]) };
       break
    od
}

/* All at once has too many orders: MASKS trades the last event for the masking. */
init
{
    atomic {
        run guest();
        run sender(2, 0, 0);
        run mover(2);
#ifdef MASKS
        run sender(1, 2, 0);
        run masker(1);
        nr_busy = 4
#else
        run sender(1, 2, 2);
        nr_busy = 3
#endif
    }
}
