/* Merged Linux's module update, by hand, for comparison with the explorer.
 *
 * What is here: stop_machine's worker loop with its acknowledgements, seamldr_lock around INSTALL, SEAMCALL entry and
 * exit with the processor's own mutex, P-SEAMLDR's session, sysinit_lock around TDH.SYS.INIT, TDH.SYS.LP.INIT in
 * parallel, TDH.SYS.SHUTDOWN and TDH.SYS.UPDATE on the lead CPU.  What is not: any content.
 *
 *   spin -DN=4 -a update.pml && cc -O2 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -m100000
 */
#ifndef N
#define N 2
#endif
#ifndef LOCK
#define LOCK 1
#endif

#define SHUTDOWN 1
#define CPU_INSTALL 2
#define CPU_INIT 3
#define RUN_UPDATE 4
#define DONE 5

byte state = SHUTDOWN;
byte acks, failures, left;
bool seamldr_lock, sysinit_lock, mutex, sysinit_done;
bool ready = 1;                 /* SEAM_READY */
byte module = 1;                /* 1 old and up, 2 old and shut down, 3 new, 4 initialised, 5 up */
byte session, lp_inited;
byte inside;                    /* processors in P-SEAMLDR */
bool success;

inline take(lock) { atomic { !lock -> lock = 1 } }

inline acknowledge(bad) {
  d_step {
    if :: bad -> failures++ :: else fi;
    acks++;
    if
    :: acks == N && failures == 0 ->
       acks = 0;
       if :: state < DONE -> state++ :: else fi
    :: else
    fi
  }
}

active [N] proctype cpu() {
  byte cur;
  bool bad;
  do
  :: cur != DONE && failures == 0 ->
     atomic { state != cur || failures > 0 -> bad = 0; if :: state != cur -> cur = state :: else -> goto leave fi };
     if
     :: cur == SHUTDOWN && _pid == 0 ->
        atomic { if :: ready -> skip :: else -> bad = 1 fi };       /* SEAMCALL */
        if :: !bad -> module = 2 :: else fi;                        /* TDH.SYS.SHUTDOWN */
        skip                                                        /* SEAMRET */
     :: cur == CPU_INSTALL ->
#if LOCK
        take(seamldr_lock);
#endif
        atomic {                                                    /* SEAMCALL */
          if :: mutex -> bad = 1 :: else -> mutex = 1; inside++ fi
        };
        if
        :: !bad ->
           assert(inside == 1);
           skip;                                                    /* entry */
           d_step {                                                 /* SEAMLDR.INSTALL */
             ready = 0; session++;
             if :: session == N -> session = 0; module = 3; ready = 1 :: else fi
           };
           skip;                                                    /* exit */
           atomic { inside--; mutex = 0 }                           /* SEAMRET */
        :: else
        fi;
#if LOCK
        seamldr_lock = 0
#endif
     :: cur == CPU_INIT ->
        take(sysinit_lock);
        if
        :: !sysinit_done ->
           atomic { if :: ready -> skip :: else -> bad = 1 fi };
           if :: !bad -> module = 4 :: else fi;
           sysinit_done = 1
        :: else
        fi;
        sysinit_lock = 0;
        if
        :: !bad ->
           atomic { if :: ready -> skip :: else -> bad = 1 fi };    /* SEAMCALL */
           skip;                                                    /* checks, locks taken */
           if :: !bad -> d_step { lp_inited++ } :: else fi;         /* TDH.SYS.LP.INIT */
           skip                                                     /* SEAMRET */
        :: else
        fi
     :: cur == RUN_UPDATE && _pid == 0 ->
        atomic { if :: ready && module == 4 && lp_inited == N -> skip :: else -> bad = 1 fi };
        if :: !bad -> module = 5 :: else fi;
        skip
     :: else
     fi;
     acknowledge(bad)
  :: else -> break
  od;
leave:
  skip;
  d_step {
    left++;
    if :: left == N -> success = (failures == 0); assert(!success || module == 5) :: else fi
  }
}
