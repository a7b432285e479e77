//! The one list of instructions. Operation names, decoder, encoder, disassembler and the table that engines
//! iterate over are all generated from it, so that they cannot disagree.
//!
//! A line is `Op "mnemonic" Format Extension encoding(…);` where the encoding names the fixed fields
//! (functions in [`super::encoding`]). Encodings: RISC-V Unprivileged ISA, "RV32/64G Instruction Set Listings",
//! chapter "B" for the bit manipulation instructions; Privileged ISA for `mret` to `sfence.inval.ir`.
//! Where two lines overlap the earlier one wins; today none do, and a test keeps it so.

/// Calls the macro `$callback` with the whole list, for code that wants one item per instruction.
#[macro_export]
macro_rules! for_each_instruction {
    ($callback:ident) => {
        $callback! {
            // RV32I and RV64I.
            Lui "lui" U I opcode(0x37);
            Auipc "auipc" U I opcode(0x17);
            Jal "jal" J I opcode(0x6f);
            Jalr "jalr" Jalr I funct3(0x67, 0);
            Beq "beq" Branch I funct3(0x63, 0);
            Bne "bne" Branch I funct3(0x63, 1);
            Blt "blt" Branch I funct3(0x63, 4);
            Bge "bge" Branch I funct3(0x63, 5);
            Bltu "bltu" Branch I funct3(0x63, 6);
            Bgeu "bgeu" Branch I funct3(0x63, 7);
            Lb "lb" Load I funct3(0x03, 0);
            Lh "lh" Load I funct3(0x03, 1);
            Lw "lw" Load I funct3(0x03, 2);
            Ld "ld" Load I funct3(0x03, 3);
            Lbu "lbu" Load I funct3(0x03, 4);
            Lhu "lhu" Load I funct3(0x03, 5);
            Lwu "lwu" Load I funct3(0x03, 6);
            Sb "sb" Store I funct3(0x23, 0);
            Sh "sh" Store I funct3(0x23, 1);
            Sw "sw" Store I funct3(0x23, 2);
            Sd "sd" Store I funct3(0x23, 3);
            Addi "addi" I I funct3(0x13, 0);
            Slti "slti" I I funct3(0x13, 2);
            Sltiu "sltiu" I I funct3(0x13, 3);
            Xori "xori" I I funct3(0x13, 4);
            Ori "ori" I I funct3(0x13, 6);
            Andi "andi" I I funct3(0x13, 7);
            Slli "slli" Shift6 I funct6(0x13, 1, 0x00);
            Srli "srli" Shift6 I funct6(0x13, 5, 0x00);
            Srai "srai" Shift6 I funct6(0x13, 5, 0x10);
            Add "add" R I funct7(0x33, 0, 0x00);
            Sub "sub" R I funct7(0x33, 0, 0x20);
            Sll "sll" R I funct7(0x33, 1, 0x00);
            Slt "slt" R I funct7(0x33, 2, 0x00);
            Sltu "sltu" R I funct7(0x33, 3, 0x00);
            Xor "xor" R I funct7(0x33, 4, 0x00);
            Srl "srl" R I funct7(0x33, 5, 0x00);
            Sra "sra" R I funct7(0x33, 5, 0x20);
            Or "or" R I funct7(0x33, 6, 0x00);
            And "and" R I funct7(0x33, 7, 0x00);
            Addiw "addiw" I I funct3(0x1b, 0);
            Slliw "slliw" Shift5 I funct7(0x1b, 1, 0x00);
            Srliw "srliw" Shift5 I funct7(0x1b, 5, 0x00);
            Sraiw "sraiw" Shift5 I funct7(0x1b, 5, 0x20);
            Addw "addw" R I funct7(0x3b, 0, 0x00);
            Subw "subw" R I funct7(0x3b, 0, 0x20);
            Sllw "sllw" R I funct7(0x3b, 1, 0x00);
            Srlw "srlw" R I funct7(0x3b, 5, 0x00);
            Sraw "sraw" R I funct7(0x3b, 5, 0x20);
            Fence "fence" Fence I funct3(0x0f, 0);
            FenceI "fence.i" FenceI Zifencei funct3(0x0f, 1);
            Ecall "ecall" Nullary I exact(0x0000_0073);
            Ebreak "ebreak" Nullary I exact(0x0010_0073);

            // Privileged, and Svinval.
            Sret "sret" Nullary Privileged exact(0x1020_0073);
            Mret "mret" Nullary Privileged exact(0x3020_0073);
            Wfi "wfi" Nullary Privileged exact(0x1050_0073);
            SfenceVma "sfence.vma" Vma Privileged funct7_rd(0x73, 0, 0x09, 0);
            SinvalVma "sinval.vma" Vma Svinval funct7_rd(0x73, 0, 0x0b, 0);
            SfenceWInval "sfence.w.inval" Nullary Svinval exact(0x1800_0073);
            SfenceInvalIr "sfence.inval.ir" Nullary Svinval exact(0x1810_0073);

            // Zicsr.
            Csrrw "csrrw" Csr Zicsr funct3(0x73, 1);
            Csrrs "csrrs" Csr Zicsr funct3(0x73, 2);
            Csrrc "csrrc" Csr Zicsr funct3(0x73, 3);
            Csrrwi "csrrwi" CsrImm Zicsr funct3(0x73, 5);
            Csrrsi "csrrsi" CsrImm Zicsr funct3(0x73, 6);
            Csrrci "csrrci" CsrImm Zicsr funct3(0x73, 7);

            // M.
            Mul "mul" R M funct7(0x33, 0, 0x01);
            Mulh "mulh" R M funct7(0x33, 1, 0x01);
            Mulhsu "mulhsu" R M funct7(0x33, 2, 0x01);
            Mulhu "mulhu" R M funct7(0x33, 3, 0x01);
            Div "div" R M funct7(0x33, 4, 0x01);
            Divu "divu" R M funct7(0x33, 5, 0x01);
            Rem "rem" R M funct7(0x33, 6, 0x01);
            Remu "remu" R M funct7(0x33, 7, 0x01);
            Mulw "mulw" R M funct7(0x3b, 0, 0x01);
            Divw "divw" R M funct7(0x3b, 4, 0x01);
            Divuw "divuw" R M funct7(0x3b, 5, 0x01);
            Remw "remw" R M funct7(0x3b, 6, 0x01);
            Remuw "remuw" R M funct7(0x3b, 7, 0x01);

            // A.
            LrW "lr.w" LoadReserved A load_reserved(2);
            ScW "sc.w" Atomic A atomic(2, 0x03);
            AmoswapW "amoswap.w" Atomic A atomic(2, 0x01);
            AmoaddW "amoadd.w" Atomic A atomic(2, 0x00);
            AmoxorW "amoxor.w" Atomic A atomic(2, 0x04);
            AmoandW "amoand.w" Atomic A atomic(2, 0x0c);
            AmoorW "amoor.w" Atomic A atomic(2, 0x08);
            AmominW "amomin.w" Atomic A atomic(2, 0x10);
            AmomaxW "amomax.w" Atomic A atomic(2, 0x14);
            AmominuW "amominu.w" Atomic A atomic(2, 0x18);
            AmomaxuW "amomaxu.w" Atomic A atomic(2, 0x1c);
            LrD "lr.d" LoadReserved A load_reserved(3);
            ScD "sc.d" Atomic A atomic(3, 0x03);
            AmoswapD "amoswap.d" Atomic A atomic(3, 0x01);
            AmoaddD "amoadd.d" Atomic A atomic(3, 0x00);
            AmoxorD "amoxor.d" Atomic A atomic(3, 0x04);
            AmoandD "amoand.d" Atomic A atomic(3, 0x0c);
            AmoorD "amoor.d" Atomic A atomic(3, 0x08);
            AmominD "amomin.d" Atomic A atomic(3, 0x10);
            AmomaxD "amomax.d" Atomic A atomic(3, 0x14);
            AmominuD "amominu.d" Atomic A atomic(3, 0x18);
            AmomaxuD "amomaxu.d" Atomic A atomic(3, 0x1c);

            // Zba.
            AddUw "add.uw" R Zba funct7(0x3b, 0, 0x04);
            Sh1add "sh1add" R Zba funct7(0x33, 2, 0x10);
            Sh2add "sh2add" R Zba funct7(0x33, 4, 0x10);
            Sh3add "sh3add" R Zba funct7(0x33, 6, 0x10);
            Sh1addUw "sh1add.uw" R Zba funct7(0x3b, 2, 0x10);
            Sh2addUw "sh2add.uw" R Zba funct7(0x3b, 4, 0x10);
            Sh3addUw "sh3add.uw" R Zba funct7(0x3b, 6, 0x10);
            SlliUw "slli.uw" Shift6 Zba funct6(0x1b, 1, 0x02);

            // Zbb.
            Andn "andn" R Zbb funct7(0x33, 7, 0x20);
            Orn "orn" R Zbb funct7(0x33, 6, 0x20);
            Xnor "xnor" R Zbb funct7(0x33, 4, 0x20);
            Clz "clz" Unary Zbb funct12(0x13, 1, 0x600);
            Ctz "ctz" Unary Zbb funct12(0x13, 1, 0x601);
            Cpop "cpop" Unary Zbb funct12(0x13, 1, 0x602);
            Clzw "clzw" Unary Zbb funct12(0x1b, 1, 0x600);
            Ctzw "ctzw" Unary Zbb funct12(0x1b, 1, 0x601);
            Cpopw "cpopw" Unary Zbb funct12(0x1b, 1, 0x602);
            SextB "sext.b" Unary Zbb funct12(0x13, 1, 0x604);
            SextH "sext.h" Unary Zbb funct12(0x13, 1, 0x605);
            ZextH "zext.h" Unary Zbb funct12(0x3b, 4, 0x080);
            OrcB "orc.b" Unary Zbb funct12(0x13, 5, 0x287);
            Rev8 "rev8" Unary Zbb funct12(0x13, 5, 0x6b8);
            Max "max" R Zbb funct7(0x33, 6, 0x05);
            Maxu "maxu" R Zbb funct7(0x33, 7, 0x05);
            Min "min" R Zbb funct7(0x33, 4, 0x05);
            Minu "minu" R Zbb funct7(0x33, 5, 0x05);
            Rol "rol" R Zbb funct7(0x33, 1, 0x30);
            Ror "ror" R Zbb funct7(0x33, 5, 0x30);
            Rolw "rolw" R Zbb funct7(0x3b, 1, 0x30);
            Rorw "rorw" R Zbb funct7(0x3b, 5, 0x30);
            Rori "rori" Shift6 Zbb funct6(0x13, 5, 0x18);
            Roriw "roriw" Shift5 Zbb funct7(0x1b, 5, 0x30);

            // Zbs.
            Bclr "bclr" R Zbs funct7(0x33, 1, 0x24);
            Bext "bext" R Zbs funct7(0x33, 5, 0x24);
            Binv "binv" R Zbs funct7(0x33, 1, 0x34);
            Bset "bset" R Zbs funct7(0x33, 1, 0x14);
            Bclri "bclri" Shift6 Zbs funct6(0x13, 1, 0x12);
            Bexti "bexti" Shift6 Zbs funct6(0x13, 5, 0x12);
            Binvi "binvi" Shift6 Zbs funct6(0x13, 1, 0x1a);
            Bseti "bseti" Shift6 Zbs funct6(0x13, 1, 0x0a);

            // Zicond.
            CzeroEqz "czero.eqz" R Zicond funct7(0x33, 5, 0x07);
            CzeroNez "czero.nez" R Zicond funct7(0x33, 7, 0x07);

            // F.
            Flw "flw" FloatLoad F funct3(0x07, 2);
            Fsw "fsw" FloatStore F funct3(0x27, 2);
            FmaddS "fmadd.s" FloatFma F fused(0x43, 0);
            FmsubS "fmsub.s" FloatFma F fused(0x47, 0);
            FnmsubS "fnmsub.s" FloatFma F fused(0x4b, 0);
            FnmaddS "fnmadd.s" FloatFma F fused(0x4f, 0);
            FaddS "fadd.s" FloatArith F float(0x00);
            FsubS "fsub.s" FloatArith F float(0x04);
            FmulS "fmul.s" FloatArith F float(0x08);
            FdivS "fdiv.s" FloatArith F float(0x0c);
            FsqrtS "fsqrt.s" FloatUnary F float_rs2(0x2c, 0);
            FsgnjS "fsgnj.s" FloatBinary F funct7(0x53, 0, 0x10);
            FsgnjnS "fsgnjn.s" FloatBinary F funct7(0x53, 1, 0x10);
            FsgnjxS "fsgnjx.s" FloatBinary F funct7(0x53, 2, 0x10);
            FminS "fmin.s" FloatBinary F funct7(0x53, 0, 0x14);
            FmaxS "fmax.s" FloatBinary F funct7(0x53, 1, 0x14);
            FeqS "feq.s" FloatCompare F funct7(0x53, 2, 0x50);
            FltS "flt.s" FloatCompare F funct7(0x53, 1, 0x50);
            FleS "fle.s" FloatCompare F funct7(0x53, 0, 0x50);
            FcvtWS "fcvt.w.s" FloatToInt F float_rs2(0x60, 0);
            FcvtWuS "fcvt.wu.s" FloatToInt F float_rs2(0x60, 1);
            FcvtLS "fcvt.l.s" FloatToInt F float_rs2(0x60, 2);
            FcvtLuS "fcvt.lu.s" FloatToInt F float_rs2(0x60, 3);
            FcvtSW "fcvt.s.w" IntToFloat F float_rs2(0x68, 0);
            FcvtSWu "fcvt.s.wu" IntToFloat F float_rs2(0x68, 1);
            FcvtSL "fcvt.s.l" IntToFloat F float_rs2(0x68, 2);
            FcvtSLu "fcvt.s.lu" IntToFloat F float_rs2(0x68, 3);
            FmvXW "fmv.x.w" FloatMoveToInt F funct12(0x53, 0, 0xe00);
            FclassS "fclass.s" FloatMoveToInt F funct12(0x53, 1, 0xe00);
            FmvWX "fmv.w.x" IntMoveToFloat F funct12(0x53, 0, 0xf00);

            // D.
            Fld "fld" FloatLoad D funct3(0x07, 3);
            Fsd "fsd" FloatStore D funct3(0x27, 3);
            FmaddD "fmadd.d" FloatFma D fused(0x43, 1);
            FmsubD "fmsub.d" FloatFma D fused(0x47, 1);
            FnmsubD "fnmsub.d" FloatFma D fused(0x4b, 1);
            FnmaddD "fnmadd.d" FloatFma D fused(0x4f, 1);
            FaddD "fadd.d" FloatArith D float(0x01);
            FsubD "fsub.d" FloatArith D float(0x05);
            FmulD "fmul.d" FloatArith D float(0x09);
            FdivD "fdiv.d" FloatArith D float(0x0d);
            FsqrtD "fsqrt.d" FloatUnary D float_rs2(0x2d, 0);
            FsgnjD "fsgnj.d" FloatBinary D funct7(0x53, 0, 0x11);
            FsgnjnD "fsgnjn.d" FloatBinary D funct7(0x53, 1, 0x11);
            FsgnjxD "fsgnjx.d" FloatBinary D funct7(0x53, 2, 0x11);
            FminD "fmin.d" FloatBinary D funct7(0x53, 0, 0x15);
            FmaxD "fmax.d" FloatBinary D funct7(0x53, 1, 0x15);
            FeqD "feq.d" FloatCompare D funct7(0x53, 2, 0x51);
            FltD "flt.d" FloatCompare D funct7(0x53, 1, 0x51);
            FleD "fle.d" FloatCompare D funct7(0x53, 0, 0x51);
            FcvtSD "fcvt.s.d" FloatUnary D float_rs2(0x20, 1);
            FcvtDS "fcvt.d.s" FloatUnary D float_rs2(0x21, 0);
            FcvtWD "fcvt.w.d" FloatToInt D float_rs2(0x61, 0);
            FcvtWuD "fcvt.wu.d" FloatToInt D float_rs2(0x61, 1);
            FcvtLD "fcvt.l.d" FloatToInt D float_rs2(0x61, 2);
            FcvtLuD "fcvt.lu.d" FloatToInt D float_rs2(0x61, 3);
            FcvtDW "fcvt.d.w" IntToFloat D float_rs2(0x69, 0);
            FcvtDWu "fcvt.d.wu" IntToFloat D float_rs2(0x69, 1);
            FcvtDL "fcvt.d.l" IntToFloat D float_rs2(0x69, 2);
            FcvtDLu "fcvt.d.lu" IntToFloat D float_rs2(0x69, 3);
            FmvXD "fmv.x.d" FloatMoveToInt D funct12(0x53, 0, 0xe20);
            FclassD "fclass.d" FloatMoveToInt D funct12(0x53, 1, 0xe20);
            FmvDX "fmv.d.x" IntMoveToFloat D funct12(0x53, 0, 0xf20);
        }
    };
}

pub(crate) use for_each_instruction;
