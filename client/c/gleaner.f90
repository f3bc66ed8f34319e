! Module gleaner: libgleaner's functions for Fortran, as gleaner.h describes them. Handles (gleaner *, gleaner_call *) are type(c_ptr).
! Compile this file with your program and link with -lgleaner; arguments and results need the target attribute (or c_loc of one that has it).
module gleaner
  use, intrinsic :: iso_c_binding
  implicit none
  private

  integer(c_int), parameter, public :: GLEANER_OK = 0, GLEANER_PENDING = 1
  integer(c_int), parameter, public :: GLEANER_CRASHED = -1, GLEANER_DEADLINE = -2, GLEANER_TOO_LARGE = -3, &
    GLEANER_UNKNOWN_SYMBOL = -4, GLEANER_LOAD_FAILED = -5, GLEANER_EXITED = -6, GLEANER_BAD_REQUEST = -7, &
    GLEANER_LOST = -20, GLEANER_ENDED = -21, GLEANER_NO_LEASE = -30, GLEANER_UNREACHABLE = -31, GLEANER_PROTOCOL = -32, &
    GLEANER_INVALID = -40, GLEANER_TOO_BIG = -41, GLEANER_NO_MEMORY = -42, GLEANER_FORKED = -43

  integer(c_int64_t), parameter, public :: gleaner_spin_never = -1_c_int64_t, gleaner_spin_always = huge(0_c_int64_t)

  type, bind(C), public :: gleaner_options
    integer(c_int32_t) :: bytes = 0 ! c_sizeof of this type
    integer(c_int32_t) :: depth = 0
    integer(c_int64_t) :: spin_ns = 0 ! or gleaner_spin_never, gleaner_spin_always
    type(c_ptr) :: lease = c_null_ptr
    type(c_ptr) :: carrier = c_null_ptr
    type(c_ptr) :: provider = c_null_ptr
  end type

  public :: gleaner_init, gleaner_finish, gleaner_lease, gleaner_buffer_bytes, gleaner_wanted, gleaner_executors, gleaner_await, &
    gleaner_run, gleaner_invoke, gleaner_alloc, gleaner_args, gleaner_start, gleaner_result, gleaner_wait, gleaner_test, &
    gleaner_wait_any, gleaner_free, gleaner_runs, gleaner_text, gleaner_detail

  interface
    integer(c_int) function gleaner_init_c(lease, options) bind(C, name="gleaner_init")
      import :: c_int, c_ptr
      type(c_ptr), intent(out) :: lease
      type(c_ptr), value :: options
    end function

    subroutine gleaner_finish(lease) bind(C)
      import :: c_ptr
      type(c_ptr), value :: lease
    end subroutine

    integer(c_int64_t) function gleaner_lease(lease) bind(C)
      import :: c_int64_t, c_ptr
      type(c_ptr), value :: lease
    end function

    integer(c_int64_t) function gleaner_buffer_bytes(lease) bind(C)
      import :: c_int64_t, c_ptr
      type(c_ptr), value :: lease
    end function

    integer(c_int) function gleaner_wanted(lease) bind(C)
      import :: c_int, c_ptr
      type(c_ptr), value :: lease
    end function

    integer(c_int) function gleaner_executors(lease) bind(C)
      import :: c_int, c_ptr
      type(c_ptr), value :: lease
    end function

    integer(c_int) function gleaner_await(lease, executors, timeout_ms) bind(C)
      import :: c_int, c_int64_t, c_ptr
      type(c_ptr), value :: lease
      integer(c_int), value :: executors
      integer(c_int64_t), value :: timeout_ms
    end function

    integer(c_int) function gleaner_run(lease, args, size, result, room, bytes) bind(C)
      import :: c_int, c_int32_t, c_ptr
      type(c_ptr), value :: lease, args, result
      integer(c_int32_t), value :: size, room
      integer(c_int32_t), intent(out) :: bytes
    end function

    integer(c_int) function gleaner_invoke(lease, args, size, result, room, call) bind(C)
      import :: c_int, c_int32_t, c_ptr
      type(c_ptr), value :: lease, args, result
      integer(c_int32_t), value :: size, room
      type(c_ptr), intent(out) :: call
    end function

    integer(c_int) function gleaner_alloc(lease, args_bytes, room, call) bind(C)
      import :: c_int, c_int32_t, c_ptr
      type(c_ptr), value :: lease
      integer(c_int32_t), value :: args_bytes, room
      type(c_ptr), intent(out) :: call
    end function

    type(c_ptr) function gleaner_args(call) bind(C)
      import :: c_ptr
      type(c_ptr), value :: call
    end function

    integer(c_int) function gleaner_start(call, size) bind(C)
      import :: c_int, c_int32_t, c_ptr
      type(c_ptr), value :: call
      integer(c_int32_t), value :: size
    end function

    type(c_ptr) function gleaner_result(call) bind(C)
      import :: c_ptr
      type(c_ptr), value :: call
    end function

    integer(c_int) function gleaner_wait(call, timeout_ms, bytes) bind(C)
      import :: c_int, c_int32_t, c_int64_t, c_ptr
      type(c_ptr), value :: call
      integer(c_int64_t), value :: timeout_ms
      integer(c_int32_t), intent(inout) :: bytes
    end function

    integer(c_int) function gleaner_test(call, bytes) bind(C)
      import :: c_int, c_int32_t, c_ptr
      type(c_ptr), value :: call
      integer(c_int32_t), intent(inout) :: bytes
    end function

    ! which counts from 0, as in C.
    integer(c_int) function gleaner_wait_any(calls, n, timeout_ms, which) bind(C)
      import :: c_int, c_int32_t, c_int64_t, c_ptr
      type(c_ptr), intent(in) :: calls(*)
      integer(c_int32_t), value :: n
      integer(c_int64_t), value :: timeout_ms
      integer(c_int32_t), intent(inout) :: which
    end function

    subroutine gleaner_free(call) bind(C)
      import :: c_ptr
      type(c_ptr), value :: call
    end subroutine

    integer(c_int32_t) function gleaner_runs(call) bind(C)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: call
    end function

    type(c_ptr) function gleaner_text_c(status) bind(C, name="gleaner_text")
      import :: c_int, c_ptr
      integer(c_int), value :: status
    end function

    type(c_ptr) function gleaner_detail_c() bind(C, name="gleaner_detail")
      import :: c_ptr
    end function

    integer(c_size_t) function strlen_c(s) bind(C, name="strlen")
      import :: c_size_t, c_ptr
      type(c_ptr), value :: s
    end function
  end interface

contains

  integer(c_int) function gleaner_init(lease, options)
    type(c_ptr), intent(out) :: lease
    type(gleaner_options), intent(in), target, optional :: options

    if (present(options)) then
      gleaner_init = gleaner_init_c(lease, c_loc(options))
    else
      gleaner_init = gleaner_init_c(lease, c_null_ptr)
    end if
  end function

  function gleaner_text(status) result(text)
    integer(c_int), intent(in) :: status
    character(len=:), allocatable :: text

    text = string(gleaner_text_c(status))
  end function

  function gleaner_detail() result(text)
    character(len=:), allocatable :: text

    text = string(gleaner_detail_c())
  end function

  function string(s) result(text)
    type(c_ptr), intent(in) :: s
    character(len=:), allocatable :: text
    character(kind=c_char), pointer :: letters(:)
    integer :: i

    call c_f_pointer(s, letters, [strlen_c(s)])
    allocate (character(len=size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
  end function
end module
